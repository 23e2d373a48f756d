// Condbroadcast has twenty components that wait for new settings on a sync.Cond. Settings change twice a second or less, and between two
// changes all twenty block; in a quiet process they would do so for days.
package main

import (
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

type settings struct {
	mu      sync.Mutex
	changed *sync.Cond
	version int
}

func (s *settings) set(version int) {
	s.mu.Lock()
	s.version = version
	s.mu.Unlock()
	s.changed.Broadcast()
}

func (s *settings) after(version int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.version == version {
		s.changed.Wait()
	}
	return s.version
}

func main() {
	s := new(settings)
	s.changed = sync.NewCond(&s.mu)
	for i := 0; i < 20; i++ {
		go follow(s)
	}
	workload.Run(func(i int) {
		if i > 0 && workload.Rand.Intn(40) == 0 {
			s.set(i)
		}
	})
}

func follow(s *settings) {
	for version := 0; ; {
		version = s.after(version)
	}
}
