// Janitorcache has a cache for each of eight tables, made when the table is first read, and each has a janitor that removes what is old
// at every tick, for ever. It is healthy: the tables are few, and the entries go.
package main

import (
	"sync"
	"time"

	"lifetrace.dev/tests/leakset/workload"
)

type cache struct {
	mu      sync.Mutex
	entries map[int]time.Time
}

func newCache() *cache {
	c := &cache{entries: make(map[int]time.Time)}
	go c.clean()
	return c
}

func (c *cache) read(key int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[key] = time.Now()
}

func (c *cache) clean() {
	for now := range time.NewTicker(250 * time.Millisecond).C {
		c.mu.Lock()
		for key, read := range c.entries {
			if now.Sub(read) > time.Second {
				delete(c.entries, key)
			}
		}
		c.mu.Unlock()
	}
}

func main() {
	tables := make(map[int]*cache)
	workload.Run(func(i int) {
		table := workload.Rand.Intn(8)
		if tables[table] == nil {
			tables[table] = newCache()
		}
		tables[table].read(i)
	})
}
