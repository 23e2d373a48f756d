// Lockorder sends heartbeats of a store while it ticks. One takes the lock of the queue and then that of the replica, the other the
// other way round: when both run, each holds what the other waits for. The shape is that of CockroachDB pull request 10214, as gathered
// in GoBench (Yuan et al., CGO 2021).
package main

import (
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const work = 15 * time.Millisecond

type store struct {
	queue, replica sync.Mutex
	queued, term   int
}

func (s *store) tick() {
	s.replica.Lock()
	defer s.replica.Unlock()
	s.term++
	time.Sleep(work)
	s.queue.Lock()
	defer s.queue.Unlock()
	s.queued++
}

func (s *store) sendQueued() {
	s.queue.Lock()
	defer s.queue.Unlock()
	s.queued = 0
	time.Sleep(work)
	s.replica.Lock()
	defer s.replica.Unlock()
	s.term++
}

func main() {
	workload.Run(func(i int) {
		s := new(store)
		go s.tick() // leak
		if i%4 == 0 {
			go s.sendQueued() // leak
		}
	})
}
