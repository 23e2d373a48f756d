// Fanerror checks four hosts at once and returns at the first error. The channel of results has no buffer, and those that come after
// the error are not received: their goroutines block as they send. It is what "Go Concurrency Patterns: Pipelines and cancellation" (the
// Go blog, 2014) warns of, where a stage stops receiving before its senders are done.
package main

import (
	"errors"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const hosts = 4

func main() {
	down := 0
	workload.Run(func(i int) {
		broken := hosts
		if i%10 == 0 {
			broken = 0
		}
		if checkAll(broken) != nil {
			down++
		}
	})
}

func checkAll(broken int) error {
	results := make(chan error)
	for host := 0; host < hosts; host++ {
		go func(host int) { // leak
			results <- check(host, broken)
		}(host)
	}
	for host := 0; host < hosts; host++ {
		if err := <-results; err != nil {
			return err
		}
	}
	return nil
}

func check(host, broken int) error {
	if host == broken {
		return errors.New("the host is down")
	}
	time.Sleep(3 * time.Millisecond)
	return nil
}
