// Ratelimiter sends what a request asks for at the pace of a ticker of its own, and stops the ticker and the goroutine when the request is
// over. It looks like the leak of tickers, and each ends after a third of a second.
package main

import (
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	workload.Run(func(i int) {
		if i%3 == 0 {
			go send(6)
		}
	})
}

func send(chunks int) {
	tokens, stop := limit(50 * time.Millisecond)
	defer stop()
	for ; chunks > 0; chunks-- {
		<-tokens
	}
}

func limit(interval time.Duration) (<-chan struct{}, func()) {
	tokens, done := make(chan struct{}), make(chan struct{})
	go func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-done:
				return
			}
			select {
			case tokens <- struct{}{}:
			case <-done:
				return
			}
		}
	}()
	return tokens, func() { close(done) }
}
