// Acceptloop opens a new listener whenever its settings change, which is at every twelfth operation. The listener before is forgotten
// and not closed, so the goroutine that accepts its connections waits in the poller for ever.
package main

import (
	"net"

	"lifetrace.dev/tests/leakset/workload"
)

type server struct{ listener net.Listener }

func (s *server) configure() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.listener = listener
	go accept(listener) // leak
	return nil
}

func accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go greet(conn)
	}
}

func greet(conn net.Conn) {
	defer conn.Close()
	conn.Write([]byte("hello\n"))
}

func main() {
	s := new(server)
	workload.Run(func(i int) {
		if i%12 == 0 {
			if err := s.configure(); err != nil {
				workload.Fail("%v", err)
			}
		}
	})
}
