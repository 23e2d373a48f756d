// Hub is like a chat server whose clients join slowly and stay: one with every third operation until there are thirty, each with a
// goroutine that reads and one that writes. The readers hear of nobody for as long as the process runs.
package main

import (
	"net"

	"lifetrace.dev/tests/leakset/workload"
)

const seats = 30

type client struct {
	conn net.Conn
	send chan []byte
}

func (c *client) readPump(said chan<- []byte) {
	for buffer := make([]byte, 64); ; {
		n, err := c.conn.Read(buffer)
		if err != nil {
			close(c.send)
			return
		}
		said <- append([]byte(nil), buffer[:n]...)
	}
}

func (c *client) writePump() {
	for message := range c.send {
		if _, err := c.conn.Write(message); err != nil {
			return
		}
	}
}

func main() {
	said := make(chan []byte, 16)
	var clients []*client
	var browsers []net.Conn
	workload.Run(func(i int) {
		if i%3 == 0 && len(clients) < seats {
			browser, conn := net.Pipe()
			c := &client{conn, make(chan []byte, 4)}
			browsers, clients = append(browsers, browser), append(clients, c)
			go c.readPump(said)
			go c.writePump()
		}
		to := workload.Rand.Intn(len(clients))
		clients[to].send <- []byte("hello")
		browsers[to].Read(make([]byte, 5))
	})
}
