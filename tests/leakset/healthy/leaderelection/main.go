// Leaderelection has five candidates for one lease. One holds it and renews it at every tick, and the others wait, until it lets go after a
// second and another one takes it. The four that wait may do so for very long.
package main

import (
	"sync/atomic"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

var renewed atomic.Int64

func main() {
	lease := make(chan struct{}, 1)
	lease <- struct{}{}
	for i := 0; i < 5; i++ {
		go run(lease)
	}
	workload.Run(func(int) {})
}

func run(lease chan struct{}) {
	for {
		<-lease
		lead(time.Second)
		lease <- struct{}{}
	}
}

func lead(term time.Duration) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	over := time.After(term)
	for {
		select {
		case <-ticker.C:
			renewed.Add(1)
		case <-over:
			return
		}
	}
}
