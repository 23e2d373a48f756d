// Cronjobs has a goroutine for each of twenty jobs, which sleeps until the job is due. Most are due in an hour or later and sleep through
// the whole run; one is due every 300 ms.
package main

import (
	"sync/atomic"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

var ran atomic.Int64

func main() {
	for i := 0; i < 19; i++ {
		go schedule(time.Duration(i+1) * time.Hour)
	}
	go schedule(300 * time.Millisecond)
	workload.Run(func(int) {})
}

func schedule(interval time.Duration) {
	for {
		time.Sleep(interval)
		ran.Add(1)
	}
}
