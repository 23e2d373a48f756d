// Signalnotify runs each task in a goroutine, under a context that SIGUSR1 cancels. For that, signal.NotifyContext has a goroutine, which
// ends as each task stops its notification. os/signal keeps one of its own for as long as the process lives.
package main

import (
	"context"
	"os/signal"
	"syscall"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	workload.Run(func(i int) {
		go run(time.Duration(i%5) * 10 * time.Millisecond)
	})
}

func run(task time.Duration) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGUSR1)
	defer stop()
	select {
	case <-time.After(task):
	case <-ctx.Done():
	}
}
