// Afterfunc answers from a cache or from a back end, and a timer gives the answer "too late" if neither does. An answer of the cache
// leaves the timer running: its function is then called in a goroutine of its own (started by time.goFunc) and blocks for ever as it
// sends to a caller that has gone.
package main

import (
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const limit = 30 * time.Millisecond

func main() {
	workload.Run(func(i int) { answer(i) })
}

func answer(key int) string {
	answers := make(chan string)
	timer := time.AfterFunc(limit, func() { // leak
		answers <- "too late"
	})
	if key%3 == 0 {
		return "cached"
	}
	defer timer.Stop()
	go func() { answers <- "fetched" }()
	return <-answers
}
