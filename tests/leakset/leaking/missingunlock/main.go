// Missingunlock forwards datagrams through a table of connections. The path of a failed dial returns without unlocking the table, so
// that the eleventh datagram and every one after it leaves a goroutine that waits for the mutex for ever. The shape is that of moby
// pull request 7559, as gathered in GoBench (Yuan et al., CGO 2021).
package main

import (
	"errors"
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type proxy struct {
	mu    sync.Mutex
	conns map[int]int
}

func (p *proxy) forward(datagram int) error {
	p.mu.Lock()
	if _, known := p.conns[datagram%16]; !known {
		conn, err := dial(datagram)
		if err != nil {
			return err
		}
		p.conns[datagram%16] = conn
	}
	p.mu.Unlock()
	return nil
}

func dial(datagram int) (int, error) {
	if datagram == 10 {
		return 0, errors.New("connection refused")
	}
	return datagram, nil
}

func main() {
	p := &proxy{conns: make(map[int]int)}
	beats := make(chan time.Time, 1)
	go beat(beats)
	workload.Run(func(i int) {
		go p.forward(i) // leak
		select {
		case beats <- time.Now():
		default:
		}
	})
}

// beat lives as long as the process.
func beat(beats <-chan time.Time) {
	longest, last := time.Duration(0), time.Now()
	for now := range beats {
		if since := now.Sub(last); since > longest {
			longest = since
		}
		last = now
	}
}
