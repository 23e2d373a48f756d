// Package fakedb is a driver for database/sql whose database is not there: every statement succeeds, and every query has three rows.
package fakedb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
)

// Open returns a database with no connection yet.
func Open() *sql.DB {
	return sql.OpenDB(connector{})
}

type connector struct{}

func (connector) Connect(context.Context) (driver.Conn, error) { return conn{}, nil }
func (connector) Driver() driver.Driver                        { return fake{} }

type fake struct{}

func (fake) Open(string) (driver.Conn, error) { return conn{}, nil }

type conn struct{}

func (conn) Prepare(string) (driver.Stmt, error) { return stmt{}, nil }
func (conn) Close() error                        { return nil }
func (conn) Begin() (driver.Tx, error)           { return tx{}, nil }

type tx struct{}

func (tx) Commit() error   { return nil }
func (tx) Rollback() error { return nil }

type stmt struct{}

func (stmt) Close() error                               { return nil }
func (stmt) NumInput() int                              { return -1 }
func (stmt) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(1), nil }
func (stmt) Query([]driver.Value) (driver.Rows, error)  { return &rows{}, nil }

type rows struct{ read int64 }

func (*rows) Columns() []string { return []string{"id"} }
func (*rows) Close() error      { return nil }

func (r *rows) Next(values []driver.Value) error {
	if r.read == 3 {
		return io.EOF
	}
	r.read++
	values[0] = r.read
	return nil
}
