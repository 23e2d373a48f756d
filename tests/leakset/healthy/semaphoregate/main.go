// Semaphoregate lets four requests at a time through to a back end; in a rush dozens block at the gate for up to half a second. A place is
// always given back, also when the request fails, so the queue goes down again.
package main

import (
	"errors"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type gate chan struct{}

func (g gate) pass(request int) error {
	g <- struct{}{}
	defer func() { <-g }()
	time.Sleep(40 * time.Millisecond)
	if request%3 == 0 {
		return errors.New("the back end refuses")
	}
	return nil
}

func main() {
	g := make(gate, 4)
	workload.Run(func(i int) {
		if i%60 != 0 {
			return
		}
		for request := 0; request < 48; request++ {
			go g.pass(request)
		}
	})
}
