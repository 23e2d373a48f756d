// Stoppedloop asks a node for its status by a message to the node's loop. A status that is asked for when the loop has stopped blocks as
// it sends the message, for there is no case for the end. The shape is that of etcd pull request 6857, as gathered in GoBench (Yuan et
// al., CGO 2021).
package main

import "lifetrace.dev/tests/leakset/workload"

type node struct {
	questions  chan chan int
	stop, done chan struct{}
}

func start(term int) *node {
	n := &node{make(chan chan int), make(chan struct{}), make(chan struct{})}
	go n.run(term)
	return n
}

func (n *node) run(term int) {
	defer close(n.done)
	for {
		select {
		case question := <-n.questions:
			question <- term
		case <-n.stop:
			return
		}
	}
}

func (n *node) status() int {
	answer := make(chan int)
	n.questions <- answer
	return <-answer
}

func (n *node) halt() {
	close(n.stop)
	<-n.done
}

func main() {
	n := start(0)
	workload.Run(func(i int) {
		if i%4 == 3 {
			n.halt()
		}
		go n.status() // leak
		if i%4 == 3 {
			n = start(i)
		}
	})
}
