// Logrotation writes a log that is rotated every forty lines. Each old file is compressed by a goroutine that ends, and one that the
// first rotation starts removes the oldest, blocked in its receive from one rotation to the next.
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"sync"

	"lifetrace.dev/tests/leakset/workload"
)

type log struct {
	current  bytes.Buffer
	lines    int
	once     sync.Once
	archived chan []byte
}

func (l *log) write(line string) {
	l.current.WriteString(line)
	if l.lines++; l.lines%40 == 0 {
		l.rotate()
	}
}

func (l *log) rotate() {
	l.once.Do(func() {
		l.archived = make(chan []byte)
		go l.prune()
	})
	old := append([]byte(nil), l.current.Bytes()...)
	l.current.Reset()
	go l.archive(old)
}

func (l *log) archive(old []byte) {
	var file bytes.Buffer
	writer := gzip.NewWriter(&file)
	writer.Write(old)
	writer.Close()
	l.archived <- file.Bytes()
}

func (l *log) prune() {
	var files [][]byte
	for file := range l.archived {
		if files = append(files, file); len(files) > 3 {
			files = files[1:]
		}
	}
}

func main() {
	l := new(log)
	workload.Run(func(i int) {
		for line := 0; line < 4; line++ {
			l.write(fmt.Sprintf("operation %d, line %d\n", i, line))
		}
	})
}
