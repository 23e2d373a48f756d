// Warmup opens a session to a peer with every second operation until it has forty, each with a goroutine that waits for the peer's word
// and does not get any. At first nothing tells it from a leak; after eighty operations it stays as it is.
package main

import (
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

const enough = 40

type session struct {
	words   chan string
	closing chan struct{}
}

func (s *session) listen(gone *sync.WaitGroup) {
	defer gone.Done()
	for {
		select {
		case <-s.words:
		case <-s.closing:
			return
		}
	}
}

func main() {
	var sessions []*session
	var gone sync.WaitGroup
	workload.AtEnd(func() {
		for _, s := range sessions {
			close(s.closing)
		}
		gone.Wait()
	})
	workload.Run(func(i int) {
		if i%2 == 0 && len(sessions) < enough {
			s := &session{make(chan string), make(chan struct{})}
			sessions = append(sessions, s)
			gone.Add(1)
			go s.listen(&gone)
		}
	})
}
