// Heartbeats keeps sixteen sessions alive by a ticker each. With every tenth operation the oldest session is closed, its ticker stopped
// and its goroutine ended, and a new one opened: as many as before, and others.
package main

import (
	"sync/atomic"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type session struct {
	beats atomic.Int64
	done  chan struct{}
}

func open() *session {
	s := &session{done: make(chan struct{})}
	go s.beat()
	return s
}

func (s *session) beat() {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.beats.Add(1)
		case <-s.done:
			return
		}
	}
}

func (s *session) close() { close(s.done) }

func main() {
	sessions := make([]*session, 16)
	for i := range sessions {
		sessions[i] = open()
	}
	workload.Run(func(i int) {
		if i%10 == 0 {
			oldest := i / 10 % len(sessions)
			sessions[oldest].close()
			sessions[oldest] = open()
		}
	})
}
