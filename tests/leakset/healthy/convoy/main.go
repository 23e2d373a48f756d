// Convoy has one lock that everybody needs and that is sometimes held for 150 ms. While it is, a dozen goroutines pile up in its mutex;
// then they all get it, one after the other.
package main

import (
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type ledger struct {
	mu      sync.Mutex
	entries int
}

func (l *ledger) book(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	time.Sleep(took)
	l.entries++
}

func main() {
	l := new(ledger)
	workload.Run(func(i int) {
		took := time.Millisecond
		if i%40 == 0 {
			took = 150 * time.Millisecond
		}
		go l.book(took)
		go l.book(time.Millisecond)
	})
}
