// Wrongcontext has a goroutine for each request that removes the request's temporary state when its context is done. It is given the
// context of the whole server instead of the request's, so it blocks in the receive as long as the server runs.
package main

import (
	"context"
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

type server struct {
	ctx       context.Context
	mu        sync.Mutex
	temporary map[int][]byte
}

func (s *server) handle(request int) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	s.removeAfter(s.ctx, request)
	s.work(ctx, request)
}

func (s *server) removeAfter(ctx context.Context, request int) {
	go func() { // leak
		<-ctx.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.temporary, request)
	}()
}

func (s *server) work(_ context.Context, request int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.temporary[request] = make([]byte, 64)
}

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := &server{ctx: ctx, temporary: make(map[int][]byte)}
	workload.Run(func(i int) {
		if i%3 == 0 {
			s.handle(i)
		}
	})
}
