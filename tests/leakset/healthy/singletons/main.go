// Singletons are the six services of a process (a logger, metrics and so on), each started with its goroutine by a sync.Once when it is
// first used. Nobody ever stops them, and nobody needs to: there is one of each for as long as the process lives.
package main

import (
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

type service struct {
	once     sync.Once
	messages chan int
}

func (s *service) use(message int) {
	s.once.Do(func() {
		s.messages = make(chan int, 16)
		go s.run()
	})
	s.messages <- message
}

func (s *service) run() {
	sum := 0
	for message := range s.messages {
		sum += message
	}
}

func main() {
	var services [6]service
	workload.Run(func(i int) {
		services[workload.Rand.Intn(len(services))].use(i)
	})
}
