// Prematurereturn starts a look-up in the background before it checks what it was asked for. When the check fails, it returns before
// it receives what was found, and the look-up blocks for ever in its send. It is the premature function return of Saioc et al.,
// "Unveiling and Vanquishing Goroutine Leaks in Enterprise Microservices" (CGO 2024).
package main

import (
	"errors"

	"lifetrace.dev/tests/leakset/workload"
)

var errEmpty = errors.New("an order of nothing")

type order struct{ item, count int }

func main() {
	audit := make(chan order, 16)
	go write(audit)
	workload.Run(func(i int) {
		placed := order{item: i, count: i % 3}
		if place(placed) == nil {
			audit <- placed
		}
	})
}

func place(o order) error {
	stock := make(chan int)
	go func() { // leak
		stock <- lookUp(o.item)
	}()
	if o.count == 0 {
		return errEmpty
	}
	if <-stock < o.count {
		return errors.New("out of stock")
	}
	return nil
}

func lookUp(item int) int { return 10 + item%7 }

// write lives as long as the process.
func write(audit <-chan order) {
	total := 0
	for o := range audit {
		total += o.count
	}
}
