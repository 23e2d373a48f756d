// Bursts gets sixty requests at once every second, which take from 200 to 400 ms each. Seen at the wrong moment it has grown by sixty
// goroutines that all block in a receive; half a second later they have all gone.
package main

import (
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	workload.Run(func(i int) {
		if i%50 != 0 {
			return
		}
		for request := 0; request < 60; request++ {
			go handle(time.Duration(200+workload.Rand.Intn(200)) * time.Millisecond)
		}
	})
}

func handle(took time.Duration) {
	done := make(chan struct{})
	time.AfterFunc(took, func() { close(done) })
	<-done
}
