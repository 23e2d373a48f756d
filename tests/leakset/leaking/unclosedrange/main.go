// Unclosedrange works through each batch with three workers of its own. They range over the channel of jobs, which is never closed, so
// they block in a receive when the batch is done. It is the unclosed range of Saioc et al., "Unveiling and Vanquishing Goroutine Leaks
// in Enterprise Microservices" (CGO 2024).
package main

import (
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

const workers = 3

func main() {
	var batch []int
	workload.Run(func(i int) {
		batch = append(batch, i)
		if len(batch) == 10 {
			process(batch)
			batch = batch[:0]
		}
	})
}

func process(batch []int) {
	jobs := make(chan int)
	var done sync.WaitGroup
	done.Add(len(batch))
	for i := 0; i < workers; i++ {
		go func() { // leak
			for job := range jobs {
				_ = job * job
				done.Done()
			}
		}()
	}
	for _, job := range batch {
		jobs <- job
	}
	done.Wait()
}
