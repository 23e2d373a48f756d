// Elasticpool starts workers as they are needed, up to 24, and a worker that has had nothing to do for 300 ms ends. With a rush of jobs
// now and then the number goes up and down; it has a bound, and comes back.
package main

import (
	"sync/atomic"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const (
	most     = 24
	patience = 300 * time.Millisecond
)

type pool struct {
	jobs    chan time.Duration
	workers atomic.Int64
}

func (p *pool) submit(job time.Duration) {
	select {
	case p.jobs <- job:
		return
	default:
	}
	if p.workers.Load() < most {
		p.workers.Add(1)
		go p.work(job)
		return
	}
	p.jobs <- job
}

func (p *pool) work(job time.Duration) {
	defer p.workers.Add(-1)
	idle := time.NewTimer(patience)
	for {
		time.Sleep(job)
		idle.Reset(patience)
		select {
		case job = <-p.jobs:
			idle.Stop()
		case <-idle.C:
			return
		}
	}
}

func main() {
	p := &pool{jobs: make(chan time.Duration)}
	workload.Run(func(i int) {
		jobs := 1
		if i%60 == 0 {
			jobs = 20
		}
		for ; jobs > 0; jobs-- {
			p.submit(25 * time.Millisecond)
		}
	})
}
