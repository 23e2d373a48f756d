// Sessionworkers has a worker for each session, so that the requests of one are handled in order. Workers are kept in a map by the
// session's key, and none is ever removed: as sessions come and go, the workers of the old ones stay in their receive.
package main

import (
	"fmt"

	"lifetrace.dev/tests/leakset/workload"
)

type dispatcher struct{ workers map[string]chan int }

func (d *dispatcher) dispatch(session string, request int) {
	requests, known := d.workers[session]
	if !known {
		requests = make(chan int, 8)
		d.workers[session] = requests
		go handle(requests) // leak
	}
	requests <- request
}

func handle(requests <-chan int) {
	handled := 0
	for request := range requests {
		handled += request
	}
}

func main() {
	d := &dispatcher{make(map[string]chan int)}
	workload.Run(func(i int) {
		d.dispatch(fmt.Sprintf("session-%d", i/3), i)
	})
}
