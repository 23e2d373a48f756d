// Txopen moves money in a transaction, and returns without a rollback when there is not enough. The transaction's goroutine, which
// database/sql.(*DB).beginDC starts, blocks in a receive until its context is done, which is never. The shape is that of CockroachDB
// pull request 13197, as gathered in GoBench (Yuan et al., CGO 2021).
package main

import (
	"context"
	"database/sql"
	"errors"

	"lifetrace.dev/tests/leakset/fakedb"
	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	db := fakedb.Open()
	refused := 0
	workload.Run(func(i int) {
		if move(db, i%4) != nil {
			refused++
		}
	})
}

func move(db *sql.DB, amount int) error {
	tx, err := db.BeginTx(context.Background(), nil) // leak
	if err != nil {
		return err
	}
	if _, err := tx.Exec("update accounts set amount = amount - ?", amount); err != nil {
		return err
	}
	if amount == 0 {
		return errors.New("there is not enough")
	}
	return tx.Commit()
}
