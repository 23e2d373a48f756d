// Batchjobs does nothing for two seconds, and then a batch of twenty tasks in parallel, of 300 ms each, for which it waits. Most of the
// time it stands still; at each batch it grows by 21 goroutines, which go.
package main

import (
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	workload.Run(func(i int) {
		if i%100 == 20 {
			go batch()
		}
	})
}

func batch() {
	var group sync.WaitGroup
	group.Add(20)
	for task := 0; task < 20; task++ {
		go func() {
			defer group.Done()
			time.Sleep(300 * time.Millisecond)
		}()
	}
	group.Wait()
}
