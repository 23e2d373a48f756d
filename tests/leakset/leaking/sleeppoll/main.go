// Sleeppoll waits for jobs to finish by looking every 200 ms. A job that was cancelled never says that it has finished, so its poller
// sleeps and looks for ever: it is in time.Sleep nearly always, and never for long.
package main

import (
	"sync/atomic"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type job struct{ finished, cancelled atomic.Bool }

func (j *job) onFinish(then func()) {
	go func() { // leak
		for !j.finished.Load() {
			time.Sleep(200 * time.Millisecond)
		}
		then()
	}()
}

func main() {
	var finished atomic.Int64
	workload.Run(func(i int) {
		j := new(job)
		j.onFinish(func() { finished.Add(1) })
		if i%4 == 0 {
			j.cancelled.Store(true)
		} else {
			j.finished.Store(true)
		}
	})
}
