// Delayqueue puts failed jobs back into its queue after a while, by a goroutine that sleeps for up to 900 ms and then sends. The three
// workers block in their receive, the delayed in their sleep, and a job that failed twice is given up.
package main

import (
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type job struct{ number, failed int }

type queue struct{ jobs chan job }

func (q queue) work() {
	for j := range q.jobs {
		if j.number%2 == 0 && j.failed < 2 {
			go q.later(job{j.number, j.failed + 1})
		}
	}
}

func (q queue) later(j job) {
	time.Sleep(time.Duration(j.failed) * 450 * time.Millisecond)
	q.jobs <- j
}

func main() {
	q := queue{make(chan job)}
	for i := 0; i < 3; i++ {
		go q.work()
	}
	workload.Run(func(i int) {
		q.jobs <- job{number: i}
	})
}
