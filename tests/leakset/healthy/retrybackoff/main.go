// Retrybackoff tries each delivery up to five times, and waits twice as long each time. Half of them fail to the end, after 750 ms: many
// sleep at any time, and none for ever.
package main

import (
	"errors"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	workload.Run(func(i int) {
		if i%2 == 0 {
			go deliver(i)
		}
	})
}

func deliver(message int) error {
	var err error
	wait := 50 * time.Millisecond
	for attempt := 0; attempt < 5; attempt++ {
		if err = send(message, attempt); err == nil {
			return nil
		}
		if attempt < 4 {
			time.Sleep(wait)
			wait *= 2
		}
	}
	return err
}

func send(message, attempt int) error {
	if message%4 == 0 || attempt < 2 {
		return errors.New("the host is down")
	}
	return nil
}
