// The job system. It tells of itself by the probes of the `go:` convention: go:goroutine_start (id, name), go:sched_block (id, reason),
// go:sched_wake (id), go:goroutine_end (id).
#include "jobs.h"

#include <pthread.h>
#include <time.h>

#include "probe.h"

PROBE_DEFINE(go, goroutine_start);
PROBE_DEFINE(go, sched_block);
#ifndef JOBS_WITHOUT_WAKES
PROBE_DEFINE(go, sched_wake);
#endif
PROBE_DEFINE(go, goroutine_end);

// Something that happened between two readings of the clock.
struct moment {
    const char *what;
    const char *reason;
    long before, after;
};

struct job {
    long id;
    char name[32];
    int steps;
    // When it can go on; 0: it can run now.
    long ready_at;
    const char *reason;
    struct moment moments[2 * JOBS_STEPS + 2];
    int told;
};

static struct job jobs[JOBS_MAX];
static int made, ended;
static struct job *queue[JOBS_MAX], *waiting[JOBS_MAX];
static int queued, waits;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000L + at.tv_nsec;
}

static struct moment *begin(struct job *job, const char *what, const char *reason) {
    struct moment *moment = &job->moments[job->told++];
    *moment = (struct moment){.what = what, .reason = reason, .before = now()};
    return moment;
}

long jobs_start(const char *name, int steps) {
    pthread_mutex_lock(&lock);
    struct job *job = &jobs[made++];
    job->id = 1000 + made;
    job->steps = steps < JOBS_STEPS ? steps : JOBS_STEPS;
    snprintf(job->name, sizeof job->name, "%s", name);
    struct moment *moment = begin(job, "start", NULL);
    if (PROBE_ENABLED(go, goroutine_start)) PROBE2(go, goroutine_start, job->id, job->name);
    moment->after = now();
    queue[queued++] = job;
    pthread_mutex_unlock(&lock);
    return job->id;
}

// With the lock held: makes those runnable whose time has come. Returns when the next one's comes.
static long wake_those_due(void) {
    long next = 0, at = now();
    for (int i = 0; i < waits;) {
        struct job *job = waiting[i];
        if (job->ready_at > at) {
            if (!next || job->ready_at < next) next = job->ready_at;
            i++;
            continue;
        }
        struct moment *moment = begin(job, "wake", NULL);
#ifndef JOBS_WITHOUT_WAKES
        if (PROBE_ENABLED(go, sched_wake)) PROBE1(go, sched_wake, job->id);
#endif
        moment->after = now();
        waiting[i] = waiting[--waits];
        queue[queued++] = job;
        pthread_cond_broadcast(&changed);
    }
    return next;
}

// With the lock held: a step, after which the job waits, or is over.
static void step(struct job *job) {
    static const char *const reasons[] = {"disk", "network", "timer"};
    if (--job->steps > 0) {
        job->reason = reasons[job->steps % 3];
        job->ready_at = now() + (1 + job->id % 5) * 1000000L;
        struct moment *moment = begin(job, "block", job->reason);
        if (PROBE_ENABLED(go, sched_block)) PROBE2(go, sched_block, job->id, job->reason);
        moment->after = now();
        waiting[waits++] = job;
        return;
    }
    struct moment *moment = begin(job, "exit", NULL);
    if (PROBE_ENABLED(go, goroutine_end)) PROBE1(go, goroutine_end, job->id);
    moment->after = now();
    ended++;
    pthread_cond_broadcast(&changed);
}

static void *work(void *unused) {
    (void)unused;
    pthread_mutex_lock(&lock);
    while (ended < made) {
        long next = wake_those_due();
        if (queued) {
            struct job *job = queue[--queued];
            pthread_mutex_unlock(&lock);
            // Here it would compute something.
            pthread_mutex_lock(&lock);
            step(job);
        } else if (next) {
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            long at = until.tv_nsec + (next > now() ? next - now() : 0);
            until.tv_sec += at / 1000000000L;
            until.tv_nsec = at % 1000000000L;
            pthread_cond_timedwait(&changed, &lock, &until);
        } else if (ended < made) {
            pthread_cond_wait(&changed, &lock);
        }
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

void jobs_run(int threads) {
    pthread_t ids[64];
    for (int i = 0; i < threads && i < 64; i++) pthread_create(&ids[i], NULL, work, NULL);
    for (int i = 0; i < threads && i < 64; i++) pthread_join(ids[i], NULL);
}

void jobs_truth(FILE *out) {
    for (int i = 0; i < made; i++) {
        struct job *job = &jobs[i];
        fprintf(out, "{\"id\":%ld,\"name\":\"%s\",\"moments\":[", job->id, job->name);
        for (int n = 0; n < job->told; n++) {
            struct moment *moment = &job->moments[n];
            fprintf(out, "%s{\"what\":\"%s\",\"reason\":\"%s\",\"before\":%ld,\"after\":%ld}", n ? "," : "", moment->what,
                    moment->reason ? moment->reason : "", moment->before, moment->after);
        }
        fprintf(out, "]}\n");
    }
    fflush(out);
}

int jobs_semaphores(void) {
#ifdef PROBE_SEMAPHORES
    int sum = go_goroutine_start_semaphore + go_sched_block_semaphore + go_goroutine_end_semaphore;
#ifndef JOBS_WITHOUT_WAKES
    sum += go_sched_wake_semaphore;
#endif
    return sum;
#else
    return 0;
#endif
}
