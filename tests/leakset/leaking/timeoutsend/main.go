// Timeoutsend is a server that gives the work of each request a time limit. When the limit is over first, nobody receives the result
// any more: the worker blocks for ever as it sends on a channel without a buffer. The shape is that of Kubernetes pull request 5316,
// as gathered in GoBench (Yuan et al., CGO 2021); Saioc et al., CGO 2024, call it the timeout leak.
package main

import (
	"errors"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const limit = 10 * time.Millisecond

var errTooLate = errors.New("too late")

func main() {
	late := 0
	workload.Run(func(i int) {
		took := time.Millisecond
		if i%3 == 0 {
			took = 4 * limit
		}
		if _, err := finish(func() int { time.Sleep(took); return i }); err != nil {
			late++
		}
	})
}

func finish(work func() int) (int, error) {
	result := make(chan int)
	go func() { // leak
		result <- work()
	}()
	select {
	case value := <-result:
		return value, nil
	case <-time.After(limit):
		return 0, errTooLate
	}
}
