// Package remote is the far side of TCP connections, which in a real service is another machine. One goroutine answers all connections,
// one after the other, and keeps them open: so the number of goroutines does not grow with that of connections because of the far side.
package remote

import (
	"net"

	"lifetrace.dev/tests/leakset/workload"
)

// Listen returns the address of a far side that does this to each new connection. It closes none, and answer may.
func Listen(answer func(net.Conn)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		workload.Fail("%v", err)
	}
	go func() {
		// A connection that nothing refers to would be closed by the garbage collector.
		var kept []net.Conn
		for {
			conn, err := listener.Accept()
			if err != nil {
				workload.Fail("%v", err)
			}
			answer(conn)
			kept = append(kept, conn)
		}
	}()
	return listener.Addr().String()
}
