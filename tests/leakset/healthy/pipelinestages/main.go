// Pipelinestages sends numbers through a pipeline of three stages and stops it when it has seen enough. The stages select on the done
// channel when they send, so none of them remains although the pipeline is not read to its end.
package main

import "lifetrace.dev/tests/leakset/workload"

func main() {
	workload.Run(func(i int) {
		if i%2 != 0 {
			return
		}
		done := make(chan struct{})
		sum := 0
		for n := range add(done, square(done, count(done))) {
			if sum += n; sum > 1000 {
				break
			}
		}
		close(done)
	})
}

func count(done <-chan struct{}) <-chan int {
	numbers := make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case numbers <- n:
			case <-done:
				return
			}
		}
	}()
	return numbers
}

func square(done <-chan struct{}, numbers <-chan int) <-chan int {
	return through(done, numbers, func(n int) int { return n * n })
}

func add(done <-chan struct{}, numbers <-chan int) <-chan int {
	return through(done, numbers, func(n int) int { return n + 1 })
}

func through(done <-chan struct{}, in <-chan int, change func(int) int) <-chan int {
	out := make(chan int)
	go func() {
		for {
			select {
			case n := <-in:
				select {
				case out <- change(n):
				case <-done:
					return
				}
			case <-done:
				return
			}
		}
	}()
	return out
}
