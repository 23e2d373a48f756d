// Poller waits for a condition: a goroutine ticks, the waiter looks at each tick. The waiter returns when the condition holds, and the
// goroutine learns nothing of it; its stop channel is that of the whole process. So it goes on ticking for nobody. The shape is that of
// Kubernetes pull request 70277, as gathered in GoBench (Yuan et al., CGO 2021).
package main

import (
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func ticks(interval time.Duration, stop <-chan struct{}) <-chan struct{} {
	ticks := make(chan struct{})
	go func() { // leak
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				select {
				case ticks <- struct{}{}:
				default:
				}
			case <-stop:
				return
			}
		}
	}()
	return ticks
}

func waitFor(condition func() bool, stop <-chan struct{}) {
	ticks := ticks(200*time.Millisecond, stop)
	for !condition() {
		<-ticks
	}
}

func main() {
	stop := make(chan struct{})
	workload.Run(func(i int) {
		if i%4 == 0 {
			waitFor(func() bool { return i >= 0 }, stop)
		}
	})
}
