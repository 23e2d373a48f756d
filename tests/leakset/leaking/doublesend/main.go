// Doublesend loads values in the background, and its error path forgets to return: after the error it sends a second result, which
// nobody receives, and blocks in that send. One load in four fails, the others of the same statement end. It is the double send of
// Saioc et al., "Unveiling and Vanquishing Goroutine Leaks in Enterprise Microservices" (CGO 2024).
package main

import (
	"errors"

	"lifetrace.dev/tests/leakset/workload"
)

type result struct {
	value int
	err   error
}

func main() {
	failed := 0
	workload.Run(func(i int) {
		results := make(chan result)
		go load(i, results) // leak
		if r := <-results; r.err != nil {
			failed++
		}
	})
}

func load(key int, results chan<- result) {
	value, err := read(key)
	if err != nil {
		results <- result{err: err}
	}
	results <- result{value: value}
}

func read(key int) (int, error) {
	if key%4 == 0 {
		return 0, errors.New("no such key")
	}
	return key, nil
}
