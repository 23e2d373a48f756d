// Netread opens a connection for each subscription and reads from it without a deadline. Every fourth peer takes the connection and
// never writes nor closes it: the reader waits in the network poller for ever.
package main

import (
	"bufio"
	"net"

	"lifetrace.dev/tests/leakset/remote"
	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	served := 0
	address := remote.Listen(func(conn net.Conn) {
		if served%4 != 0 {
			conn.Write([]byte("end\n"))
			conn.Close()
		}
		served++
	})
	workload.Run(func(int) { subscribe(address) })
}

func subscribe(address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		workload.Fail("%v", err)
	}
	go receive(conn) // leak
}

func receive(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadString('\n')
		if err != nil || line == "end\n" {
			return
		}
	}
}
