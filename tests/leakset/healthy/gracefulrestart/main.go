// Gracefulrestart replaces its server once a second. The new generation starts at once; the old one stops listening, finishes the
// requests that it has, half a second at most, and ends with all its goroutines. For that time there are two of everything.
package main

import (
	"net"
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type generation struct {
	listener net.Listener
	requests sync.WaitGroup
}

func start() *generation {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		workload.Fail("%v", err)
	}
	g := &generation{listener: listener}
	g.requests.Add(1)
	go g.accept()
	return g
}

func (g *generation) accept() {
	defer g.requests.Done()
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.requests.Add(1)
		go g.serve(conn)
	}
}

func (g *generation) serve(conn net.Conn) {
	defer g.requests.Done()
	defer conn.Close()
	time.Sleep(500 * time.Millisecond)
	conn.Write([]byte("done\n"))
}

func (g *generation) drain() {
	g.listener.Close()
	g.requests.Wait()
}

func main() {
	current := start()
	workload.Run(func(i int) {
		if i%50 == 49 {
			old := current
			current = start()
			go old.drain()
		}
		if i%5 == 0 {
			go request(current.listener.Addr().String())
		}
	})
}

func request(address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		// The generation has gone in this moment.
		return
	}
	defer conn.Close()
	conn.Read(make([]byte, 8))
}
