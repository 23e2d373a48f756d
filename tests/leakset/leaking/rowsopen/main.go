// Rowsopen looks for a row and returns as soon as it has found it, without closing the rows. database/sql keeps the connection and the
// goroutine that database/sql.(*Rows).initContextClose started, which blocks in a select until the context or the rows are done. The
// shape is that of CockroachDB pull request 13755, as gathered in GoBench (Yuan et al., CGO 2021).
package main

import (
	"context"
	"database/sql"

	"lifetrace.dev/tests/leakset/fakedb"
	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	db := fakedb.Open()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	workload.Run(func(i int) {
		// No row has the number 9, and rows that are read to their end are closed by that.
		wanted := 9
		if i%4 == 0 {
			wanted = 2
		}
		if _, err := find(ctx, db, wanted); err != nil {
			workload.Fail("%v", err)
		}
	})
}

func find(ctx context.Context, db *sql.DB, wanted int) (bool, error) {
	rows, err := db.QueryContext(ctx, "select id from orders") // leak
	if err != nil {
		return false, err
	}
	for rows.Next() {
		var id int
		if err := rows.Scan(&id); err != nil {
			return false, err
		}
		if id == wanted {
			return true, nil
		}
	}
	return false, rows.Err()
}
