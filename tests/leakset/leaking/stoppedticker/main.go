// Stoppedticker renews a lease at every tick until the lease is given back, when it stops the ticker. Stop does not close the ticker's
// channel, so the goroutine that ranges over it blocks in the receive for ever.
package main

import (
	"sync/atomic"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type lease struct {
	renewed atomic.Int64
	ticker  *time.Ticker
}

func take() *lease {
	l := &lease{ticker: time.NewTicker(15 * time.Millisecond)}
	go func() { // leak
		for range l.ticker.C {
			l.renewed.Add(1)
		}
	}()
	return l
}

func (l *lease) giveBack() { l.ticker.Stop() }

func main() {
	var current *lease
	workload.Run(func(i int) {
		if i%4 == 0 {
			current = take()
		}
		if i%4 == 2 {
			current.giveBack()
		}
	})
}
