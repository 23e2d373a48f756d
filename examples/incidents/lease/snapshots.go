package main

import (
	"crypto/sha512"
	"runtime/debug"
	"time"
)

const (
	snapshotEvery = 300 * time.Millisecond
	trimEvery     = 40 * time.Millisecond
	slowDisk      = 90 * time.Millisecond // what a write takes
	piece         = 64 << 10
)

// snapshots checks and writes the program's state again and again, beside its work.
type snapshots struct {
	cause cause
	state []byte
	lease *lease
	made  int
}

func newSnapshots(cause cause, bytes int, lease *lease) *snapshots {
	s := &snapshots{cause: cause, state: make([]byte, bytes), lease: lease}
	for i := range s.state {
		s.state[i] = byte(i)
	}
	return s
}

// make makes a snapshot at each tick.
func (s *snapshots) make(stop <-chan struct{}, ended chan<- struct{}) {
	defer func() { ended <- struct{}{} }()
	ticker := time.NewTicker(snapshotEvery)
	defer ticker.Stop()
	for ; ; s.made++ {
		select {
		case <-ticker.C:
			s.write(s.checksum())
		case <-stop:
			return
		}
	}
}

// checksum takes about 100 ms.
func (s *snapshots) checksum() []byte {
	if s.cause == causeGC {
		// One call of a routine in assembly: the runtime cannot stop a goroutine in it.
		sum := sha512.Sum512(s.state)
		return sum[:]
	}
	sum := sha512.New()
	for rest := s.state; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
		sum.Write(rest[:min(piece, len(rest))])
	}
	return sum.Sum(nil)
}

// write stands for a write to a slow disk.
func (s *snapshots) write([]byte) {
	if s.cause == causeLock {
		// The lease is in the snapshot too.
		s.lease.mu.Lock()
		defer s.lease.mu.Unlock()
	}
	time.Sleep(slowDisk)
}

// trim gives memory back to the system, since the container is small. Each time takes a collection, which begins and ends with the
// world stopped: for some microseconds, or as long as a goroutine cannot be stopped. With -cause lock there is none.
func (s *snapshots) trim(stop <-chan struct{}, ended chan<- struct{}) {
	defer func() { ended <- struct{}{} }()
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if s.cause != causeLock {
				debug.FreeOSMemory()
			}
		case <-stop:
			return
		}
	}
}
