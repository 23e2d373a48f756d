// Connrecycle keeps eight connections to a peer, each with a goroutine that reads from it without a deadline, and replaces the oldest with
// every fifth operation so that none becomes too old. The reader of a connection ends when it is closed.
package main

import (
	"net"

	"lifetrace.dev/tests/leakset/remote"
	"lifetrace.dev/tests/leakset/workload"
)

const size = 8

func main() {
	var kept []net.Conn
	address := remote.Listen(func(conn net.Conn) {
		// The far side tidies up as well.
		if kept = append(kept, conn); len(kept) > 2*size {
			kept[0].Close()
			kept = kept[1:]
		}
	})
	conns := make([]net.Conn, size)
	workload.Run(func(i int) {
		if i%5 != 0 {
			return
		}
		oldest := i / 5 % len(conns)
		if conns[oldest] != nil {
			conns[oldest].Close()
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			workload.Fail("%v", err)
		}
		conns[oldest] = conn
		go receive(conn)
	})
}

func receive(conn net.Conn) {
	for buffer := make([]byte, 64); ; {
		if _, err := conn.Read(buffer); err != nil {
			return
		}
	}
}
