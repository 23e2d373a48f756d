// Ticker reports the progress of each upload by a goroutine with a ticker. The upload ends, the ticker is not stopped, and the goroutine
// goes on reporting. It is never blocked for long: it wakes at every tick, for as long as the process lives.
package main

import (
	"sync/atomic"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type upload struct{ sent, reported atomic.Int64 }

func (u *upload) run() {
	u.watch()
	u.sent.Add(1 << 20)
}

func (u *upload) watch() {
	ticker := time.NewTicker(250 * time.Millisecond)
	go func() { // leak
		for range ticker.C {
			u.reported.Store(u.sent.Load())
		}
	}()
}

func main() {
	workload.Run(func(i int) {
		if i%4 == 0 {
			new(upload).run()
		}
	})
}
