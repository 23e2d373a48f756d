package main

import (
	"sync"
	"time"

	"lifetrace.dev/examples/incidents/truth"
)

// lease is ours until then.
type lease struct {
	mu    sync.Mutex
	until time.Time
}

func (l *lease) extend(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = time.Now().Add(by)
}

// late is a renewal that was.
type late struct {
	AtNs   int64 `json:"at_ns"`   // when it was done, since the program started
	LateNs int64 `json:"late_ns"` // by how much
}

// renewer renews a lease.
type renewer struct {
	lease     *lease
	every     time.Duration
	tolerated time.Duration

	goroutine int
	renewals  int
	late      []late
}

// renew renews until n renewals have fallen due. One that is late by more than a period takes the place of those it was late for.
func (r *renewer) renew(n int) {
	r.goroutine = truth.Goroutine()
	r.late = []late{}
	begin := time.Now()
	ticker := time.NewTicker(r.every)
	defer ticker.Stop()
	for due := r.every; due <= time.Duration(n)*r.every; {
		<-ticker.C
		r.lease.extend(3 * r.every)
		r.renewals++
		now := time.Since(begin)
		if by := now - due; by >= r.tolerated {
			r.late = append(r.late, late{int64(begin.Sub(started) + now), int64(by)})
		}
		// A tick that had to wait in the channel may come before its time: then what is due is due still.
		due = (now/r.every + 1) * r.every
	}
}
