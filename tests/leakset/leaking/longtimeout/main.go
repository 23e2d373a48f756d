// Longtimeout waits for the acknowledgement of each message, or for an hour. Every third is never acknowledged. These goroutines do end
// by themselves, but they come far faster than they go: an hour's worth of them is a leak by any measure.
package main

import (
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	workload.Run(func(i int) {
		acknowledged := make(chan struct{})
		go await(acknowledged) // leak
		if i%3 != 0 {
			close(acknowledged)
		}
	})
}

func await(acknowledged <-chan struct{}) bool {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	select {
	case <-acknowledged:
		return true
	case <-timer.C:
		return false
	}
}
