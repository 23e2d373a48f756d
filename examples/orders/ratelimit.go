package main

import (
	"context"
	"time"

	"lifetrace.dev/examples/orders/truth"
)

// Limiter lets a number of orders a second pass. It owns a goroutine with a ticker, which ends by Stop and only by Stop: who makes a
// limiter per session and forgets to stop it keeps a goroutine and a timer per session (-leak ticker).
type Limiter struct {
	tokens chan struct{}
	stop   chan struct{}
	ended  chan struct{}
}

var refillers truth.Site

func newLimiter(perSecond int) *Limiter {
	const ticks = 10 // a second
	burst := (perSecond + ticks - 1) / ticks
	l := &Limiter{tokens: make(chan struct{}, burst), stop: make(chan struct{}), ended: make(chan struct{})}
	refilling := refillers.NextLine()
	go l.refill(burst, time.Second*time.Duration(burst)/time.Duration(perSecond), refilling)
	return l
}

func (l *Limiter) refill(burst int, every time.Duration, self *truth.Site) {
	defer close(l.ended)
	defer self.Exit()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		for i := 0; i < burst; i++ {
			select {
			case l.tokens <- struct{}{}:
			default:
			}
		}
		select {
		case <-ticker.C:
		case <-l.stop:
			return
		}
	}
}

// Wait takes a token.
func (l *Limiter) Wait(ctx context.Context) error {
	select {
	case <-l.tokens:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stop ends the limiter's goroutine and waits for it.
func (l *Limiter) Stop() {
	close(l.stop)
	<-l.ended
}
