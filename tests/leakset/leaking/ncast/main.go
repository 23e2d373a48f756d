// Ncast asks three replicas at once and takes the first answer. The channel has no buffer, so the other two block for ever as they send
// theirs. It is the NCast leak of Saioc et al., "Unveiling and Vanquishing Goroutine Leaks in Enterprise Microservices" (CGO 2024).
package main

import (
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type replica struct{ delay time.Duration }

func (r replica) read(key int) int {
	time.Sleep(r.delay)
	return key * 2
}

func main() {
	replicas := []replica{{time.Millisecond}, {2 * time.Millisecond}, {3 * time.Millisecond}}
	workload.Run(func(i int) {
		if i%4 == 0 {
			fastest(replicas, i)
		} else {
			replicas[0].read(i)
		}
	})
}

func fastest(replicas []replica, key int) int {
	answers := make(chan int)
	for _, r := range replicas {
		go func(r replica) { // leak
			answers <- r.read(key)
		}(r)
	}
	return <-answers
}
