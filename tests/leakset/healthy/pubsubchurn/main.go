// Pubsubchurn has subscribers that come with every second operation and leave after a second or less. Each has a goroutine that blocks
// between events and ends when it unsubscribes: about fifteen at a time, never the same for long.
package main

import (
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type broker struct {
	mu          sync.Mutex
	subscribers map[chan int]bool
}

func (b *broker) subscribe() chan int {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := make(chan int, 1)
	b.subscribers[events] = true
	return events
}

func (b *broker) unsubscribe(events chan int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subscribers, events)
	close(events)
}

func (b *broker) publish(event int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for events := range b.subscribers {
		select {
		case events <- event:
		default:
		}
	}
}

func main() {
	b := &broker{subscribers: make(map[chan int]bool)}
	workload.Run(func(i int) {
		if i%2 == 0 {
			events := b.subscribe()
			go follow(events)
			time.AfterFunc(time.Duration(200+workload.Rand.Intn(800))*time.Millisecond, func() { b.unsubscribe(events) })
		}
		if i%10 == 0 {
			b.publish(i)
		}
	})
}

func follow(events <-chan int) {
	seen := 0
	for range events {
		seen++
	}
}
