// Shardedmap is a map of 32 shards, each owned by a goroutine that is asked by messages. The shards are made at the start and live as long
// as the process; some hear of nobody for seconds.
package main

import "lifetrace.dev/tests/leakset/workload"

type request struct {
	key    int
	answer chan<- int
}

func main() {
	shards := make([]chan request, 32)
	for i := range shards {
		shards[i] = make(chan request)
		go own(shards[i])
	}
	answer := make(chan int)
	workload.Run(func(i int) {
		// A few keys are asked for much more often than the others.
		key := i % 3
		if i%5 == 0 {
			key = workload.Rand.Intn(1000)
		}
		shards[key%len(shards)] <- request{key, answer}
		<-answer
	})
}

func own(requests <-chan request) {
	asked := make(map[int]int)
	for r := range requests {
		asked[r.key]++
		r.answer <- asked[r.key]
	}
}
