// Rlockreentry reads a node's state under a read lock, and calls a method that takes the read lock once more. When a writer has come in
// between, the second read lock waits for the writer and the writer for the first read lock, both for ever. The shape is that of
// Kubernetes pull request 62464, as gathered in GoBench (Yuan et al., CGO 2021).
package main

import (
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type node struct {
	mu       sync.RWMutex
	assigned map[int]int
}

func (n *node) reconcile(container int, reading chan<- struct{}) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	close(reading)
	// Meanwhile the writer comes.
	time.Sleep(10 * time.Millisecond)
	n.cpu(container)
}

func (n *node) cpu(container int) int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.assigned[container]
}

func (n *node) remove(container int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.assigned, container)
}

func main() {
	workload.Run(func(i int) {
		if i%4 != 0 {
			return
		}
		n := &node{assigned: map[int]int{i: 1}}
		reading := make(chan struct{})
		go n.reconcile(i, reading) // leak
		<-reading
		go n.remove(i) // leak
	})
}
