// Stopnotcalled makes an uploader for each file. An uploader has a goroutine that lives until Stop is called, which is forgotten on the
// path of a file that is too large: the goroutine blocks in a select whose channels nobody has any more. It is the violated contract of
// a method in Saioc et al., "Unveiling and Vanquishing Goroutine Leaks in Enterprise Microservices" (CGO 2024).
package main

import (
	"errors"

	"lifetrace.dev/tests/leakset/workload"
)

const tooLarge = 3

type uploader struct {
	parts chan int
	stop  chan struct{}
}

func start() *uploader {
	u := &uploader{parts: make(chan int), stop: make(chan struct{})}
	go u.run() // leak
	return u
}

// Stop must be called when the uploader is no longer needed.
func (u *uploader) Stop() { close(u.stop) }

func (u *uploader) run() {
	sent := 0
	for {
		select {
		case part := <-u.parts:
			sent += part
		case <-u.stop:
			return
		}
	}
}

func main() {
	refused := 0
	workload.Run(func(i int) {
		if upload(1+i%tooLarge) != nil {
			refused++
		}
	})
}

func upload(parts int) error {
	u := start()
	for part := 0; part < parts; part++ {
		if part+1 == tooLarge {
			return errors.New("the file is too large")
		}
		u.parts <- part
	}
	u.Stop()
	return nil
}
