package main

import (
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	workers = 3
	look    = 250 * time.Millisecond // how often a watcher looks at the file
)

var done atomic.Int64 // jobs

// generation is what runs by one configuration.
type generation struct {
	jobs  chan int
	over  chan struct{}
	ended sync.WaitGroup
}

// begin starts a generation. It goes on until it is stopped.
func begin(config string) *generation {
	g := &generation{jobs: make(chan int), over: make(chan struct{})}
	g.ended.Add(1 + workers)
	go g.watch(config)
	for i := 0; i < workers; i++ {
		go g.work()
	}
	return g
}

// watch waits for the file to change.
func (g *generation) watch(config string) {
	defer g.ended.Done()
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var seen time.Time
	for {
		if info, err := os.Stat(config); err == nil {
			seen = newer(seen, info.ModTime())
		}
		select {
		case <-ticker.C:
		case <-g.over:
			return
		}
	}
}

func newer(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (g *generation) work() {
	defer g.ended.Done()
	for range g.jobs {
		done.Add(1)
	}
}

// do has a worker do a job.
func (g *generation) do(job int) { g.jobs <- job }

// stop ends the watcher and the workers, and waits for them.
func (g *generation) stop() {
	close(g.over)
	close(g.jobs)
	g.ended.Wait()
}
