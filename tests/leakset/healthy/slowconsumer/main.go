// Slowconsumer has four producers and a consumer that is slower than they are. The queue between them is bounded and nearly always full:
// the producers block in their send all the time, each for a while, and the number of goroutines stands still.
package main

import (
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	orders := make(chan int)
	records := make(chan int, 8)
	for i := 0; i < 4; i++ {
		go produce(orders, records)
	}
	go consume(records)
	workload.Run(func(i int) {
		select {
		case orders <- i:
		default:
			// The order is refused.
		}
	})
}

func produce(orders <-chan int, records chan<- int) {
	for order := range orders {
		for part := 0; part < 3; part++ {
			records <- order + part
		}
	}
}

func consume(records <-chan int) {
	for range records {
		time.Sleep(30 * time.Millisecond)
	}
}
