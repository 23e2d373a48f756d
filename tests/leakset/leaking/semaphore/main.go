// Semaphore converts at most eight images at a time. A conversion that fails does not release its place in the channel that is the
// semaphore: after eight failures every further conversion blocks in its send for ever.
package main

import (
	"errors"

	"lifetrace.dev/tests/leakset/workload"
)

type converter struct{ places chan struct{} }

func (c converter) convert(image int) error {
	c.places <- struct{}{}
	if err := decode(image); err != nil {
		return err
	}
	<-c.places
	return nil
}

func decode(image int) error {
	if image%5 == 0 {
		return errors.New("not an image")
	}
	return nil
}

func main() {
	c := converter{make(chan struct{}, 8)}
	workload.Run(func(i int) {
		go c.convert(i) // leak
	})
}
