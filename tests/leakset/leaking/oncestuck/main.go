// Oncestuck connects to its registry when it is first needed, by sync.Once. The connection waits for a greeting that never comes: the
// first caller blocks in the receive, and everybody after it in the mutex of the sync.Once.
package main

import (
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

type registry struct {
	once     sync.Once
	greeting chan string
	name     string
}

func (r *registry) lookUp(service int) string {
	r.once.Do(r.connect)
	return r.name
}

func (r *registry) connect() { r.name = <-r.greeting }

func main() {
	r := &registry{greeting: make(chan string)}
	workload.Run(func(i int) {
		if i%3 == 0 {
			go r.lookUp(i) // leak
		}
	})
}
