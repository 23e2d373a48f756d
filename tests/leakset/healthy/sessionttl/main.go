// Sessionttl has a goroutine for each session, which waits until the session has not been used for one second, and ends. A session comes
// with every operation, so there are about fifty more at once than at the start, and then as many as that all the time.
package main

import (
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type sessions struct {
	mu   sync.Mutex
	open map[int]chan struct{}
}

func (s *sessions) start(id int) {
	used := make(chan struct{}, 1)
	s.mu.Lock()
	s.open[id] = used
	s.mu.Unlock()
	go s.expire(id, used)
}

func (s *sessions) use(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if used, open := s.open[id]; open {
		select {
		case used <- struct{}{}:
		default:
		}
	}
}

func (s *sessions) expire(id int, used <-chan struct{}) {
	for {
		select {
		case <-used:
		case <-time.After(time.Second):
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.open, id)
			return
		}
	}
}

func main() {
	s := &sessions{open: make(map[int]chan struct{})}
	workload.Run(func(i int) {
		s.start(i)
		s.use(i - 5)
	})
}
