// Streampeer reads messages from streams. Closing a stream tells the transport, but puts nothing into the buffer that a read in progress
// waits for, so the reader of a closed stream blocks in its receive for ever. The shape is that of grpc-go pull request 1275, as
// gathered in GoBench (Yuan et al., CGO 2021).
package main

import (
	"errors"
	"io"
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

type message struct {
	data []byte
	err  error
}

type stream struct{ received chan message }

func (s *stream) recv() ([]byte, error) {
	m := <-s.received
	return m.data, m.err
}

type transport struct {
	mu      sync.Mutex
	streams map[int]*stream
}

func (t *transport) open(id int) *stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &stream{make(chan message, 4)}
	t.streams[id] = s
	return s
}

func (t *transport) close(id int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.streams, id)
}

func main() {
	t := &transport{streams: make(map[int]*stream)}
	workload.Run(func(i int) {
		s := t.open(i)
		go consume(s) // leak
		s.received <- message{data: []byte("hello")}
		if i%4 != 0 {
			s.received <- message{err: io.EOF}
		}
		t.close(i)
	})
}

func consume(s *stream) {
	for {
		if _, err := s.recv(); errors.Is(err, io.EOF) {
			return
		}
	}
}
