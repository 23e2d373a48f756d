// Tenantworkers starts a worker for each tenant when its first request comes, and keeps it. Workers are never removed from the map, as in
// a leak of sessions, but there are twenty tenants and no more.
package main

import (
	"fmt"

	"lifetrace.dev/tests/leakset/workload"
)

type dispatcher struct{ workers map[string]chan int }

func (d *dispatcher) dispatch(tenant string, request int) {
	requests, known := d.workers[tenant]
	if !known {
		requests = make(chan int, 8)
		d.workers[tenant] = requests
		go handle(requests)
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
		d.dispatch(fmt.Sprintf("tenant-%d", workload.Rand.Intn(20)), i)
	})
}
