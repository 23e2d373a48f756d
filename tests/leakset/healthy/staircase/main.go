// Staircase adds a group of eight workers whenever it is told that there is more to do, which is four times, half a second apart. After
// the last step it stays at 32 workers, most of whom block on one channel.
package main

import "lifetrace.dev/tests/leakset/workload"

const (
	step  = 8
	steps = 4
)

func main() {
	jobs := make(chan int, 16)
	groups := 0
	workload.Run(func(i int) {
		if i%25 == 0 && groups < steps {
			groups++
			grow(jobs)
		}
		jobs <- i
	})
}

func grow(jobs <-chan int) {
	for i := 0; i < step; i++ {
		go work(jobs)
	}
}

func work(jobs <-chan int) {
	done := 0
	for range jobs {
		done++
	}
}
