// Sqlpool works on a database with at most eight connections by database/sql. The requests of a rush block until a connection is free,
// a transaction has a goroutine until it is over, and the database has its own for opening and cleaning. All rows and transactions are
// closed.
package main

import (
	"context"
	"database/sql"
	"time"

	"lifetrace.dev/tests/leakset/fakedb"
	"lifetrace.dev/tests/leakset/workload"
)

func main() {
	db := fakedb.Open()
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(4)
	db.SetConnMaxIdleTime(time.Second)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	workload.Run(func(i int) {
		requests := 1
		if i%50 == 0 {
			requests = 40
		}
		for ; requests > 0; requests-- {
			go request(ctx, db)
		}
	})
}

func request(ctx context.Context, db *sql.DB) {
	if err := move(ctx, db); err != nil {
		workload.Fail("%v", err)
	}
}

func move(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	rows, err := tx.QueryContext(ctx, "select id from orders")
	if err != nil {
		return err
	}
	defer rows.Close()
	if rows.Next() {
		time.Sleep(10 * time.Millisecond)
	}
	if err := rows.Close(); err != nil {
		return err
	}
	return tx.Commit()
}
