// Selectnodone has a dispatcher for each client, which selects between the client's messages and its settings. There is no case for
// the client's end: when it has gone, nobody sends on either channel, and the dispatcher blocks in the select for ever.
package main

import "lifetrace.dev/tests/leakset/workload"

type client struct {
	messages chan string
	settings chan int
}

func join() *client {
	c := &client{make(chan string), make(chan int)}
	go c.dispatch() // leak
	return c
}

func (c *client) dispatch() {
	size, limit := 0, 100
	for {
		select {
		case message := <-c.messages:
			if len(message) < limit {
				size += len(message)
			}
		case limit = <-c.settings:
		}
	}
}

func main() {
	current := join()
	workload.Run(func(i int) {
		if i%3 == 0 {
			current = join()
			current.settings <- 10 + i
		}
		current.messages <- "hello"
	})
}
