// Bufferedtimeout gives the work of each request a time limit, as the leak of time-outs does, and every third is late. The channel of
// the result has room for it, so the worker that nobody waits for any more sends and ends, 300 ms later.
package main

import (
	"errors"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const limit = 10 * time.Millisecond

func main() {
	late := 0
	workload.Run(func(i int) {
		took := time.Millisecond
		if i%3 == 0 {
			took = 30 * limit
		}
		if _, err := finish(func() int { time.Sleep(took); return i }); err != nil {
			late++
		}
	})
}

func finish(work func() int) (int, error) {
	result := make(chan int, 1)
	go func() { result <- work() }()
	select {
	case value := <-result:
		return value, nil
	case <-time.After(limit):
		return 0, errors.New("too late")
	}
}
