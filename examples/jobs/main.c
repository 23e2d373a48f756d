// Runs some jobs and says what has really happened.
//
//   gcc -O2 -pthread -o jobs main.c jobs.c
//   sudo lifetrace run -o jobs.rec -- ./jobs
//   lifetrace report jobs.rec; lifetrace timeline jobs.rec --id go:1003
//
// `./jobs ask` answers every line of input: with how far its semaphores are raised (-DPROBE_SEMAPHORES), or, to `go`, with the jobs.
#include <stdio.h>
#include <string.h>

#include "jobs.h"

int main(int argc, char **argv) {
    static const char *const kinds[] = {"resize", "encode", "upload"};
    if (argc > 1 && !strcmp(argv[1], "ask")) {
        char line[64];
        while (fgets(line, sizeof line, stdin) && strcmp(line, "go\n")) {
            printf("semaphores %d\n", jobs_semaphores());
            fflush(stdout);
        }
    }
    for (int i = 0; i < 24; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s %d", kinds[i % 3], i);
        jobs_start(name, 1 + i % 6);
    }
    jobs_run(4);
    jobs_truth(stdout);
    return 0;
}
