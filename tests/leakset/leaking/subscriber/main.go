// Subscriber has a broker that publishes five times a second to all who have subscribed. A client that leaves does not unsubscribe, so
// the goroutine that receives for it stays and is woken by every event, with nobody to pass it on to.
package main

import (
	"sync"
	"sync/atomic"

	"lifetrace.dev/tests/leakset/workload"
)

type broker struct {
	mu          sync.Mutex
	subscribers []chan int
}

func (b *broker) subscribe() <-chan int {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := make(chan int, 1)
	b.subscribers = append(b.subscribers, events)
	return events
}

func (b *broker) publish(event int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, events := range b.subscribers {
		select {
		case events <- event:
		default:
		}
	}
}

type client struct{ last, gone atomic.Int64 }

func (c *client) follow(b *broker) {
	events := b.subscribe()
	go func() { // leak
		for event := range events {
			if c.gone.Load() == 0 {
				c.last.Store(int64(event))
			}
		}
	}()
}

func main() {
	b := new(broker)
	workload.Run(func(i int) {
		if i%4 == 0 {
			c := new(client)
			c.follow(b)
			c.gone.Store(1)
		}
		if i%10 == 0 {
			b.publish(i)
		}
	})
}
