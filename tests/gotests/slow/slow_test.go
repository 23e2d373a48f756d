//go:build slow

// Package slow has tests that take seconds: long enough to be looked at without probes.
package slow

import (
	"testing"
	"time"
)

func TestSlow(t *testing.T) {
	for _, name := range []string{"left open", "closed well", "left open"} {
		t.Run(name, func(t *testing.T) {
			orders := make(chan int)
			go take(orders)
			orders <- 1
			// Without probes a test must be seen to run, so that what it made is known to be its own.
			time.Sleep(500 * time.Millisecond)
			if name == "closed well" {
				close(orders)
			}
		})
	}
	time.Sleep(2 * time.Second)
}

func take(orders <-chan int) {
	for range orders {
	}
}
