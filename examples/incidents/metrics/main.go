// Metrics is a service whose settings change now and then. With each change it shuts its metrics reader down and makes a new one.
// Shutdown cancels a context, but not the one that the reader's goroutine listens to.
package main

import (
	"context"
	"log"
	"sync/atomic"
	"time"

	"lifetrace.dev/examples/incidents/pace"
	"lifetrace.dev/examples/incidents/truth"
)

const interval = 200 * time.Millisecond

// service counts what it does, and exports the count.
type service struct {
	mended   bool
	requests atomic.Int64
	exports  atomic.Int64
	reader   *Reader
}

// Export hands a measurement to whoever collects them.
func (s *service) Export(ctx context.Context, requests int64) error {
	s.exports.Add(1)
	return ctx.Err()
}

// configure replaces the reader: interval and labels may be others now.
func (s *service) configure() {
	s.shutDown()
	s.reader = NewReader(s.requests.Load, s, interval)
	s.requests.Add(1)
}

func (s *service) shutDown() {
	if s.reader == nil {
		return
	}
	shutdown := s.reader.Shutdown
	if s.mended {
		shutdown = s.reader.ShutdownMended
	}
	if err := shutdown(context.Background()); err != nil {
		log.Print(err)
	}
}

func main() {
	p := pace.Parse("changes of settings", 80, 25)
	s := &service{mended: p.Healthy}
	p.Each(s.configure)
	s.shutDown()
	log.Printf("%d readers, %d exports", p.N, s.exports.Load())
	truth.Tell(p.Left(1))
}
