// Coalesce lets requests for one page that come together share one fetch. When the fetch fails, its entry is removed without closing the
// channel that the others wait on, so they block in a receive; the one that fetched returns.
package main

import (
	"errors"
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type pages struct {
	mu       sync.Mutex
	fetching map[int]chan struct{}
	fetched  map[int]bool
}

func (p *pages) get(page int) error {
	p.mu.Lock()
	if done, busy := p.fetching[page]; busy {
		p.mu.Unlock()
		<-done
		return nil
	}
	done := make(chan struct{})
	p.fetching[page] = done
	p.mu.Unlock()

	err := fetch(page)

	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.fetching, page)
	if err != nil {
		return err
	}
	p.fetched[page%16] = true
	close(done)
	return nil
}

func fetch(page int) error {
	time.Sleep(10 * time.Millisecond)
	if page%5 == 0 {
		return errors.New("no such page")
	}
	return nil
}

func main() {
	p := &pages{fetching: make(map[int]chan struct{}), fetched: make(map[int]bool)}
	workload.Run(func(i int) {
		for reader := 0; reader < 3; reader++ {
			go p.get(i) // leak
		}
	})
}
