// Latecontext gives each report 10 ms, and the work looks at its context only between two steps of 250 ms. The caller has long gone when
// the work ends, and many are at it at any time; but each does end, and sends its result into a buffer.
package main

import (
	"context"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	late := 0
	workload.Run(func(i int) {
		if _, err := report(); err != nil {
			late++
		}
	})
}

func report() (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	result := make(chan int, 1)
	go func() { result <- compute(ctx) }()
	select {
	case pages := <-result:
		return pages, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func compute(ctx context.Context) int {
	pages := 0
	for ; pages < 4 && ctx.Err() == nil; pages++ {
		time.Sleep(250 * time.Millisecond)
	}
	return pages
}
