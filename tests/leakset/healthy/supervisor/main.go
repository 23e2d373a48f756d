// Supervisor runs ten workers that crash now and then, and starts another in place of each that did. Workers are made all the time, from
// one statement, for as long as the process runs; ten are alive.
package main

import (
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const workers = 10

func main() {
	jobs := make(chan int)
	ended := make(chan struct{}, workers)
	go supervise(jobs, ended)
	workload.Run(func(i int) { jobs <- i })
}

func supervise(jobs <-chan int, ended chan struct{}) {
	for i := 0; i < workers; i++ {
		ended <- struct{}{}
	}
	for range ended {
		go run(jobs, ended)
	}
}

func run(jobs <-chan int, ended chan<- struct{}) {
	defer func() {
		_ = recover()
		ended <- struct{}{}
	}()
	for job := range jobs {
		time.Sleep(30 * time.Millisecond)
		if job%7 == 0 {
			panic("the job is malformed")
		}
	}
}
