// Iopipe encodes a table into a pipe in the background while it is read at the other end. When the reader does not like the first row,
// it returns without closing its end, and the encoder blocks for ever in the pipe's Write.
package main

import (
	"encoding/json"
	"errors"
	"io"

	"lifetrace.dev/tests/leakset/workload"
)

type row struct{ ID, Version int }

func main() {
	refused := 0
	workload.Run(func(i int) {
		rows := []row{{i, i % 4}, {i + 1, 1}, {i + 2, 1}}
		if read(encode(rows)) != nil {
			refused++
		}
	})
}

func encode(rows []row) io.Reader {
	reader, writer := io.Pipe()
	go func() { // leak
		encoder := json.NewEncoder(writer)
		for _, r := range rows {
			if err := encoder.Encode(r); err != nil {
				return
			}
		}
		writer.Close()
	}()
	return reader
}

func read(table io.Reader) error {
	decoder := json.NewDecoder(table)
	for {
		var r row
		if err := decoder.Decode(&r); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if r.Version == 0 {
			return errors.New("the table is too old")
		}
	}
}
