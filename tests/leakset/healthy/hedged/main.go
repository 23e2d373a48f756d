// Hedged asks three replicas at once and takes the first answer, as the NCast leak does. The channel has room for all answers, so the
// slower two end as well, the slowest after 400 ms.
package main

import (
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	delays := []time.Duration{2 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond}
	workload.Run(func(i int) {
		if i%2 == 0 {
			fastest(delays, i)
		}
	})
}

func fastest(replicas []time.Duration, key int) int {
	answers := make(chan int, len(replicas))
	for _, delay := range replicas {
		go func(delay time.Duration) {
			time.Sleep(delay)
			answers <- key * 2
		}(delay)
	}
	return <-answers
}
