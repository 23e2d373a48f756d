package main

import "time"

// Limiter lets so many pass in so long a time.
type Limiter struct {
	tokens chan struct{}
	stop   chan struct{}
	ended  chan struct{}
}

// NewLimiter starts a limiter. Who has one must stop it.
func NewLimiter(burst int, every time.Duration) *Limiter {
	l := &Limiter{tokens: make(chan struct{}, burst), stop: make(chan struct{}), ended: make(chan struct{})}
	go l.fill(every)
	return l
}

// fill adds a token at each tick, until Stop. A full limiter stays full.
func (l *Limiter) fill(every time.Duration) {
	defer close(l.ended)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-l.stop:
			return
		}
		select {
		case l.tokens <- struct{}{}:
		default:
		}
	}
}

// Wait takes a token.
func (l *Limiter) Wait() { <-l.tokens }

// Stop ends the limiter's goroutine, and waits for it.
func (l *Limiter) Stop() {
	close(l.stop)
	<-l.ended
}
