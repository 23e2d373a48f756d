// Batcher writes what its callers bring when fifty have come, and each caller blocks until then. So the number of blocked goroutines grows
// steadily for a second, as that of a leak does, drops to nothing, and grows again.
package main

import "lifetrace.dev/tests/leakset/workload"

const size = 50

type item struct {
	value   int
	written chan struct{}
}

func main() {
	items := make(chan item)
	go write(items)
	workload.Run(func(i int) {
		go store(items, i)
	})
}

func store(items chan<- item, value int) {
	it := item{value, make(chan struct{})}
	items <- it
	<-it.written
}

func write(items <-chan item) {
	var batch []item
	for it := range items {
		if batch = append(batch, it); len(batch) < size {
			continue
		}
		for _, written := range batch {
			close(written.written)
		}
		batch = nil
	}
}
