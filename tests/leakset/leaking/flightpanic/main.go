// Flightpanic lets one caller look a key up and the others wait for what it finds. When the look-up panics, the panic is caught further
// out, but the call stays in the map and its WaitGroup is never done: all who ask for the key wait for ever. The shape is that of Go
// issue 33519 about x/sync/singleflight.
package main

import (
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

type call struct {
	group sync.WaitGroup
	value int
}

type flights struct {
	mu    sync.Mutex
	calls map[int]*call
}

func (f *flights) do(key int, look func(int) int) int {
	f.mu.Lock()
	if c, flying := f.calls[key]; flying {
		f.mu.Unlock()
		c.group.Wait()
		return c.value
	}
	c := new(call)
	c.group.Add(1)
	f.calls[key] = c
	f.mu.Unlock()

	c.value = look(key)

	f.mu.Lock()
	delete(f.calls, key)
	f.mu.Unlock()
	c.group.Done()
	return c.value
}

func main() {
	f := &flights{calls: make(map[int]*call)}
	workload.Run(func(i int) {
		go request(f, i/4) // leak
	})
}

func request(f *flights, key int) {
	defer func() { _ = recover() }()
	f.do(key, look)
}

func look(key int) int {
	if key%2 == 0 {
		panic("the table is damaged")
	}
	return key
}
