// Idleserver is an HTTP server to which forty clients are connected from the start. Nearly all are idle all the time, and the goroutine
// that serves each waits in the poller: many that wait long, and their number stands still.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"

	"lifetrace.dev/tests/leakset/workload"
)

const clients = 40

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		workload.Fail("%v", err)
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello")
	}))
	conns := make([]net.Conn, clients)
	for i := range conns {
		if conns[i], err = net.Dial("tcp", listener.Addr().String()); err != nil {
			workload.Fail("%v", err)
		}
	}
	workload.Run(func(i int) {
		if i%10 == 0 {
			ask(conns[i/10%4])
		}
	})
}

func ask(conn net.Conn) {
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		workload.Fail("%v", err)
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
}
