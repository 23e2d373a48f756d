// A job system: jobs that run on any of a few threads, wait without holding one, and end.
#pragma once

#include <stdio.h>

#define JOBS_MAX 256
#define JOBS_STEPS 8

// Makes a job of so many steps; between two steps it waits. Returns its id.
long jobs_start(const char *name, int steps);
// Runs all jobs on so many threads, to their end.
void jobs_run(int threads);
// Writes what has really happened, a line of JSON a job. Times are CLOCK_MONOTONIC, from just before a probe to just after it.
void jobs_truth(FILE *out);
// How far the semaphores are raised: the sum of all.
int jobs_semaphores(void);
