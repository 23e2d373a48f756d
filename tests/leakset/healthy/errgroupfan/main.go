// Errgroupfan asks five back ends for each request and waits for all of them. The first error cancels the others, which notice at their
// next step. Every goroutine has ended before the request has.
package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type group struct {
	wait   sync.WaitGroup
	once   sync.Once
	cancel context.CancelFunc
	err    error
}

func (g *group) run(task func() error) {
	g.wait.Add(1)
	go func() {
		defer g.wait.Done()
		if err := task(); err != nil {
			g.once.Do(func() {
				g.err = err
				g.cancel()
			})
		}
	}()
}

func main() {
	workload.Run(func(i int) {
		if i%3 == 0 {
			go request(i)
		}
	})
}

func request(number int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	g := &group{cancel: cancel}
	for backend := 0; backend < 5; backend++ {
		broken := (number+backend)%11 == 0
		g.run(func() error { return ask(ctx, broken) })
	}
	g.wait.Wait()
	return g.err
}

func ask(ctx context.Context, broken bool) error {
	for step := 0; step < 5; step++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if broken && step == 2 {
			return errors.New("the back end is broken")
		}
	}
	return nil
}
