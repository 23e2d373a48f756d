// Watchdogs sets a timer by time.AfterFunc for every call and stops it when the call is over. One call in five is slow: its timer's
// function runs in a goroutine of its own, notes it, waits a little and ends.
package main

import (
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type notes struct {
	mu   sync.Mutex
	slow int
}

func (n *notes) add() {
	n.mu.Lock()
	n.slow++
	n.mu.Unlock()
	// The note is sent to somebody.
	time.Sleep(100 * time.Millisecond)
}

func main() {
	n := new(notes)
	workload.Run(func(i int) {
		took := time.Millisecond
		if i%5 == 0 {
			took = 15 * time.Millisecond
		}
		call(n, took)
	})
}

func call(n *notes, took time.Duration) {
	watchdog := time.AfterFunc(10*time.Millisecond, n.add)
	defer watchdog.Stop()
	time.Sleep(took)
}
