// Fixedpool has sixteen workers that range over one channel of jobs, which is never closed: they block in their receive most of the
// time, some for very long. It is healthy: they are all made at the start.
package main

import (
	"sync/atomic"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const workers = 16

var finished atomic.Int64

func main() {
	jobs := make(chan time.Duration, 64)
	for i := 0; i < workers; i++ {
		go work(jobs)
	}
	workload.Run(func(int) {
		jobs <- time.Duration(workload.Rand.Intn(40)) * time.Millisecond
	})
}

func work(jobs <-chan time.Duration) {
	for job := range jobs {
		time.Sleep(job)
		finished.Add(1)
	}
}
