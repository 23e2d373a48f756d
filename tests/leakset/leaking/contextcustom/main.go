// Contextcustom gives each session a context that derives from one of its own kind, and never calls cancel when a session is dropped.
// For a parent that the context package does not know, context.WithCancel starts a goroutine that passes the end of the parent on
// (context.(*cancelCtx).propagateCancel): it blocks in a select until either is done, which is never.
package main

import (
	"context"

	"lifetrace.dev/tests/leakset/workload"
)

// connContext is done when its connection is.
type connContext struct {
	context.Context
	gone chan struct{}
}

func (c connContext) Done() <-chan struct{} { return c.gone }

func (c connContext) Err() error {
	select {
	case <-c.gone:
		return context.Canceled
	default:
		return nil
	}
}

type session struct {
	ctx    context.Context
	cancel context.CancelFunc
}

func open(parent context.Context) *session {
	s := new(session)
	s.ctx, s.cancel = context.WithCancel(parent) // leak
	return s
}

func main() {
	conn := connContext{context.Background(), make(chan struct{})}
	workload.Run(func(i int) {
		s := open(conn)
		if i%3 != 0 {
			s.cancel()
		}
	})
}
