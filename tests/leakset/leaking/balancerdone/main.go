// Balancerdone is a client that connects, and waits in the background until its watcher of addresses says that it is ready. When the
// list of addresses ends before it has held one, the watcher returns without saying so, and the receive waits for ever for a channel
// that nobody closes. The shape is that of grpc-go pull request 1424, as gathered in GoBench (Yuan et al., CGO 2021).
package main

import "lifetrace.dev/tests/leakset/workload"

type client struct {
	addresses chan string
	ready     chan struct{}
	connected chan struct{}
}

func dial(addresses ...string) *client {
	c := &client{make(chan string, len(addresses)), make(chan struct{}), make(chan struct{})}
	for _, address := range addresses {
		c.addresses <- address
	}
	close(c.addresses)
	go c.watch()
	go c.connect() // leak
	return c
}

func (c *client) watch() {
	for range c.addresses {
		select {
		case <-c.ready:
		default:
			close(c.ready)
		}
	}
}

func (c *client) connect() {
	<-c.ready
	close(c.connected)
}

func main() {
	workload.Run(func(i int) {
		if i%4 == 0 {
			dial()
			return
		}
		<-dial("10.0.0.1:443", "10.0.0.2:443").connected
	})
}
