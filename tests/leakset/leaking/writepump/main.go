// Writepump serves clients that stay for a while, each with a goroutine that reads and one that writes. The reader ends when the client
// hangs up. The writer ranges over the channel of what is to be sent, which is not closed then, and blocks in its receive for ever.
package main

import (
	"net"

	"lifetrace.dev/tests/leakset/workload"
)

type client struct {
	conn net.Conn
	send chan []byte
}

func (c *client) readPump() {
	defer c.conn.Close()
	for buffer := make([]byte, 64); ; {
		n, err := c.conn.Read(buffer)
		if err != nil {
			return
		}
		c.send <- append([]byte(nil), buffer[:n]...)
	}
}

func (c *client) writePump() {
	for message := range c.send {
		if _, err := c.conn.Write(message); err != nil {
			return
		}
	}
}

func serve(conn net.Conn) {
	c := &client{conn, make(chan []byte, 4)}
	go c.readPump()
	go c.writePump() // leak
}

func main() {
	var browser net.Conn
	workload.Run(func(i int) {
		switch i % 4 {
		case 0:
			var conn net.Conn
			browser, conn = net.Pipe()
			serve(conn)
		case 3:
			browser.Close()
		default:
			echo := make([]byte, 5)
			browser.Write([]byte("hello"))
			browser.Read(echo)
		}
	})
}
