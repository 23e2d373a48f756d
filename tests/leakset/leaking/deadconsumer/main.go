// Deadconsumer reads each feed with a producer and a consumer, and a queue of four between them. A record that the consumer cannot
// decode makes it return; the producer fills the queue and then blocks for ever as it sends.
package main

import "lifetrace.dev/tests/leakset/workload"

func main() {
	workload.Run(func(i int) {
		damaged := -1
		if i%4 == 0 {
			damaged = 3
		}
		records := make(chan int, 4)
		go produce(records) // leak
		go consume(records, damaged)
	})
}

func produce(records chan<- int) {
	for record := 0; record < 20; record++ {
		records <- record
	}
	close(records)
}

func consume(records <-chan int, damaged int) {
	for record := range records {
		if record == damaged {
			return
		}
	}
}
