// Sharedfetch lets requests for one page that come together share one fetch: the others wait for it on a channel. The channel is closed
// however the fetch ends, also by a panic, so all who wait go on.
package main

import (
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type pages struct {
	mu       sync.Mutex
	fetching map[int]chan struct{}
}

func (p *pages) get(page int) {
	defer func() { _ = recover() }()
	p.mu.Lock()
	if done, busy := p.fetching[page]; busy {
		p.mu.Unlock()
		<-done
		return
	}
	done := make(chan struct{})
	p.fetching[page] = done
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.fetching, page)
		close(done)
	}()
	fetch(page)
}

func fetch(page int) {
	time.Sleep(150 * time.Millisecond)
	if page%5 == 0 {
		panic("the page is damaged")
	}
}

func main() {
	p := &pages{fetching: make(map[int]chan struct{})}
	workload.Run(func(i int) {
		go p.get(i / 4)
	})
}
