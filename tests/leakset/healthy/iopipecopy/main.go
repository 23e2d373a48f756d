// Iopipecopy compresses what it reads through a pipe, with a goroutine at the writing end. Every third reader has enough after a few bytes
// and closes its end, by which the writer's Write fails and its goroutine ends.
package main

import (
	"compress/gzip"
	"io"
	"strings"

	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	workload.Run(func(i int) {
		if i%2 != 0 {
			return
		}
		most := int64(1 << 20)
		if i%3 == 0 {
			most = 4
		}
		compressed := compress(strings.NewReader(strings.Repeat("hello ", 200)))
		io.CopyN(io.Discard, compressed, most)
		compressed.Close()
	})
}

func compress(source io.Reader) io.ReadCloser {
	reader, writer := io.Pipe()
	go func() {
		packer, err := gzip.NewWriterLevel(writer, gzip.BestSpeed)
		if err != nil {
			workload.Fail("%v", err)
		}
		if _, err = io.Copy(packer, source); err == nil {
			err = packer.Close()
		}
		writer.CloseWithError(err)
	}()
	return reader
}
