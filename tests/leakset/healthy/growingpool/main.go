// Growingpool starts another worker whenever a job finds none that is free, and never lets one go. It looks like a leak while it grows,
// and is none: it stops at 32 workers, after which a job waits until one is free.
package main

import (
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const most = 32

type pool struct {
	jobs    chan time.Duration
	workers int
}

func (p *pool) submit(job time.Duration) {
	select {
	case p.jobs <- job:
		return
	default:
	}
	if p.workers < most {
		p.workers++
		go p.work()
	}
	p.jobs <- job
}

func (p *pool) work() {
	for job := range p.jobs {
		time.Sleep(job)
	}
}

func main() {
	p := &pool{jobs: make(chan time.Duration)}
	workload.Run(func(int) {
		p.submit(700 * time.Millisecond)
	})
}
