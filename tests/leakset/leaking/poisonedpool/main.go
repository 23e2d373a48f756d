// Poisonedpool hands jobs to four workers, without waiting, by a goroutine for each. A job that panics ends its worker, which nobody
// replaces. When the fourth has gone, about a second after the start, every job's goroutine blocks as it sends.
package main

import "lifetrace.dev/tests/leakset/workload"

const workers = 4

func main() {
	jobs := make(chan int)
	for i := 0; i < workers; i++ {
		go work(jobs)
	}
	workload.Run(func(i int) {
		if i%2 == 0 {
			submit(jobs, i)
		}
	})
}

func submit(jobs chan<- int, job int) {
	go func() { jobs <- job }() // leak
}

func work(jobs <-chan int) {
	defer func() { _ = recover() }()
	for job := range jobs {
		if job%12 == 10 {
			panic("the job is malformed")
		}
	}
}
