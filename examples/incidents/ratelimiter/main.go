// Ratelimiter is a gateway that gives each session a rate limiter of its own. A limiter has a goroutine with a ticker that fills it
// up; it ends when the limiter is stopped. The code that closes a session was written before there were limiters, and stops none.
package main

import (
	"log"
	"sync"
	"time"

	"lifetrace.dev/examples/incidents/pace"
	"lifetrace.dev/examples/incidents/truth"
)

const (
	messages  = 3  // that a session sends
	perSecond = 10 // that it may send
)

// gateway serves sessions.
type gateway struct {
	mended   bool
	sessions sync.WaitGroup
}

// session is one client's.
type session struct {
	limiter *Limiter
}

// accept serves a client beside the others.
func (g *gateway) accept() {
	g.sessions.Add(1)
	go func() {
		defer g.sessions.Done()
		s := &session{limiter: NewLimiter(messages, time.Second/perSecond)}
		for i := 0; i < messages; i++ {
			s.limiter.Wait()
		}
		g.end(s)
	}()
}

// end forgets the session, and what belongs to it.
func (g *gateway) end(s *session) {
	if g.mended {
		s.limiter.Stop()
	}
}

func main() {
	p := pace.Parse("sessions", 80, 25)
	g := &gateway{mended: p.Healthy}
	p.Each(g.accept)
	g.sessions.Wait()
	log.Printf("%d sessions served", p.N)
	truth.Tell(p.Left(1))
}
