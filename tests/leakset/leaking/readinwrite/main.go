// Readinwrite removes port mappings under a write lock and tells its subscribers about it, for which it takes the read lock of the same
// RWMutex: it waits for itself. A mapping without addresses has nobody to tell. The shape is that of syncthing pull request 4829, as
// gathered in GoBench (Yuan et al., CGO 2021).
package main

import (
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

type mapping struct {
	mu          sync.RWMutex
	addresses   map[string]int
	subscribers []func(removed int)
}

func (m *mapping) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	removed := len(m.addresses)
	m.addresses = nil
	if removed > 0 {
		m.notify(removed)
	}
}

func (m *mapping) notify(removed int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, subscriber := range m.subscribers {
		subscriber(removed)
	}
}

func main() {
	workload.Run(func(i int) {
		m := &mapping{addresses: make(map[string]int)}
		if i%4 == 0 {
			m.addresses["192.0.2.1"] = 22000
		}
		go m.clear() // leak
	})
}
