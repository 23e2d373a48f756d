// Reload reads its settings again on SIGHUP, which it sends itself every 200 ms, and starts a flusher of metrics with the new interval.
// The one before is not stopped: each goes on flushing at its own ticks, beside all the others.
package main

import (
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

var flushed atomic.Int64

func main() {
	hangups := make(chan os.Signal, 4)
	signal.Notify(hangups, syscall.SIGHUP)
	go configure(hangups)
	workload.Run(func(i int) {
		if i%10 == 0 {
			if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
				workload.Fail("%v", err)
			}
		}
	})
}

func configure(hangups <-chan os.Signal) {
	interval := 100 * time.Millisecond
	for range hangups {
		interval += time.Millisecond
		go flush(interval) // leak
	}
}

func flush(interval time.Duration) {
	for range time.NewTicker(interval).C {
		flushed.Add(1)
	}
}
