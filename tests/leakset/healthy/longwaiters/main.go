// Longwaiters has a hundred goroutines that wait from the start for the process to be told to stop, blocked on one channel. They never run
// again, and they are none too many: their number has been the same since the first moment.
package main

import (
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

const components = 100

func main() {
	stop := make(chan struct{})
	var stopped sync.WaitGroup
	stopped.Add(components)
	for i := 0; i < components; i++ {
		go await(stop, &stopped)
	}
	workload.AtEnd(func() {
		close(stop)
		stopped.Wait()
	})
	served := 0
	workload.Run(func(int) { served++ })
}

func await(stop <-chan struct{}, stopped *sync.WaitGroup) {
	<-stop
	stopped.Done()
}
