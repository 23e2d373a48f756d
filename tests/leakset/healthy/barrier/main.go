// Barrier has twelve parties that work and then wait for each other at a barrier, again and again. Eleven are blocked there nearly all the
// time, on one condition; the twelfth lets them go.
package main

import (
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

const parties = 12

type barrier struct {
	mu             sync.Mutex
	open           *sync.Cond
	arrived, round int
}

func newBarrier() *barrier {
	b := new(barrier)
	b.open = sync.NewCond(&b.mu)
	return b
}

func (b *barrier) wait() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.arrived++; b.arrived == parties {
		b.arrived = 0
		b.round++
		b.open.Broadcast()
		return
	}
	for round := b.round; round == b.round; {
		b.open.Wait()
	}
}

func main() {
	b := newBarrier()
	work := make(chan int)
	for party := 0; party < parties-1; party++ {
		go func() {
			for {
				b.wait()
			}
		}()
	}
	go func() {
		for range work {
			b.wait()
		}
	}()
	workload.Run(func(i int) {
		if i%10 == 0 {
			work <- i
		}
	})
}
