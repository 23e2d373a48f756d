// Doublelock attaches disks to machines. When an attachment fails it takes the disk off again, and both methods lock the machine: the
// goroutine waits for the mutex that it holds itself. The shape is that of moby pull request 36114, as gathered in GoBench (Yuan et
// al., CGO 2021).
package main

import (
	"errors"
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

type machine struct {
	mu    sync.Mutex
	disks map[int]bool
}

func (m *machine) attach(disk int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disks[disk] = true
	if err := mount(disk); err != nil {
		m.detach(disk)
	}
}

func (m *machine) detach(disk int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.disks, disk)
}

func mount(disk int) error {
	if disk%4 == 0 {
		return errors.New("no such device")
	}
	return nil
}

func main() {
	workload.Run(func(i int) {
		m := &machine{disks: make(map[int]bool)}
		go m.attach(i) // leak
	})
}
