// Package shop starts goroutines, and stops them if it is asked to. Nothing in it knows of lifetrace.
package shop

// Shop answers one order at a time.
type Shop struct {
	orders chan int
	done   chan struct{}
}

// Open starts a shop; it serves until Close.
func Open() *Shop {
	s := &Shop{orders: make(chan int), done: make(chan struct{})}
	go s.serve()
	return s
}

func (s *Shop) serve() {
	for range s.orders {
		s.done <- struct{}{}
	}
	close(s.done)
}

// Order waits until the order was served.
func (s *Shop) Order(n int) {
	s.orders <- n
	<-s.done
}

// Close ends the serving, and waits for that.
func (s *Shop) Close() {
	close(s.orders)
	<-s.done
}
