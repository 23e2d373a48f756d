// Streamreconnect is a server of event streams with ten clients. A stream is ended by the server after one second, and the client, which
// has blocked in its read all the while, connects again. Each connection's goroutines end with it.
package main

import (
	"bufio"
	"net"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

const clients = 10

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		workload.Fail("%v", err)
	}
	go accept(listener)
	started := 0
	workload.Run(func(i int) {
		if i%5 == 0 && started < clients {
			started++
			go follow(listener.Addr().String())
		}
	})
}

func accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go stream(conn)
	}
}

func stream(conn net.Conn) {
	defer conn.Close()
	for event := 0; event < 2; event++ {
		if _, err := conn.Write([]byte("event\n")); err != nil {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func follow(address string) {
	for {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			workload.Fail("%v", err)
		}
		for events := bufio.NewScanner(conn); events.Scan(); {
		}
		conn.Close()
	}
}
