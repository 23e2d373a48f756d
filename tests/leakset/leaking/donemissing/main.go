// Donemissing imports files in parts. A part that cannot be read returns without WaitGroup.Done, so the goroutine that waits for all
// parts of this file waits for ever.
package main

import (
	"errors"
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	workload.Run(func(i int) {
		parts := []int{i, i + 1, i + 2}
		if i%3 != 0 {
			parts = []int{1, 2}
		}
		imported(parts)
	})
}

func imported(parts []int) <-chan struct{} {
	var group sync.WaitGroup
	done := make(chan struct{})
	group.Add(len(parts))
	for _, part := range parts {
		go func(part int) {
			if err := read(part); err != nil {
				return
			}
			group.Done()
		}(part)
	}
	go func() { // leak
		group.Wait()
		close(done)
	}()
	return done
}

func read(part int) error {
	if part%3 == 0 {
		return errors.New("the part is damaged")
	}
	return nil
}
