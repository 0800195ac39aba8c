// Package sqlite is a thin layer over the pure-Go SQLite: connections with prepared statements, the
// meaning of its errors, and whole-file work (copy, check). Only packages below pkg/datastore may
// import it.
package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"

	modernc "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// Conn is one SQLite connection with its prepared statements. It goes around database/sql, whose pool
// and per-call bookkeeping cost more than the statements themselves. One goroutine at a time may use it.
type Conn struct {
	c     driver.Conn
	stmts map[string]driver.Stmt
	args  []driver.NamedValue
	dest  []driver.Value
}

// Open opens the database file, making it if there is none, and runs the pragmas in order.
func Open(path string, pragmas ...string) (*Conn, error) {
	dsn := (&url.URL{Scheme: "file", Path: path}).String()
	dc, err := (&modernc.Driver{}).Open(dsn)
	if err != nil {
		return nil, err
	}
	c := &Conn{c: dc, stmts: map[string]driver.Stmt{}}
	for _, p := range pragmas {
		if err := c.Exec("PRAGMA " + p); err != nil {
			return nil, errors.Join(fmt.Errorf("pragma %s: %w", p, err), c.Close())
		}
	}
	return c, nil
}

// Close ends the connection. The last one to a file in write-ahead mode empties its log.
func (c *Conn) Close() error {
	for _, s := range c.stmts {
		_ = s.Close() // the connection closes whatever is left
	}
	return c.c.Close()
}

func (c *Conn) bind(args []any) []driver.NamedValue {
	c.args = c.args[:0]
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return c.args
}

func (c *Conn) prepare(query string) (driver.Stmt, error) {
	if s, ok := c.stmts[query]; ok {
		return s, nil
	}
	s, err := c.c.Prepare(query)
	if err != nil {
		return nil, err
	}
	c.stmts[query] = s
	return s, nil
}

// Exec runs a statement once, without keeping it prepared.
func (c *Conn) Exec(query string, args ...any) error {
	_, err := c.c.(driver.ExecerContext).ExecContext(context.Background(), query, c.bind(args))
	return err
}

// Run executes a statement and keeps it prepared for the next time.
func (c *Conn) Run(query string, args ...any) error {
	s, err := c.prepare(query)
	if err != nil {
		return err
	}
	_, err = s.(driver.StmtExecContext).ExecContext(context.Background(), c.bind(args))
	return err
}

// Each runs a prepared query and hands every row to visit, whose slice is valid only during the call.
func (c *Conn) Each(query string, visit func(row []driver.Value) error, args ...any) error {
	s, err := c.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.(driver.StmtQueryContext).QueryContext(context.Background(), c.bind(args))
	if err != nil {
		return err
	}
	n := len(rows.Columns())
	for len(c.dest) < n {
		c.dest = append(c.dest, nil)
	}
	for {
		err := rows.Next(c.dest[:n])
		if errors.Is(err, io.EOF) {
			return rows.Close()
		}
		if err == nil {
			err = visit(c.dest[:n])
		}
		if err != nil {
			return errors.Join(err, rows.Close())
		}
	}
}

// Integer returns the single number a query yields, 0 for none or NULL.
func (c *Conn) Integer(query string, args ...any) (int64, error) {
	var n int64
	err := c.Each(query, func(row []driver.Value) error {
		n = Int(row[0])
		return nil
	}, args...)
	return n, err
}

// Int returns a column's number, 0 for NULL.
func Int(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}

// Text returns a column's text, empty for NULL.
func Text(v driver.Value) string {
	switch s := v.(type) {
	case string:
		return s
	case []byte:
		return string(s)
	}
	return ""
}

// Blob returns a column's bytes, nil for NULL.
func Blob(v driver.Value) []byte {
	switch s := v.(type) {
	case []byte:
		return s
	case string:
		return []byte(s)
	}
	return nil
}

// code returns SQLite's primary result code of err, 0 when it is none of SQLite's.
func code(err error) int {
	var e *modernc.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// Malformed tells whether err says that the database file is damaged.
func Malformed(err error) bool {
	c := code(err)
	return c == lib.SQLITE_CORRUPT || c == lib.SQLITE_NOTADB || errors.Is(err, ErrDamaged)
}

// SchemaFailed tells whether err says that a statement does not fit the tables. With statements that are
// known to fit, the description of the tables is damaged.
func SchemaFailed(err error) bool { return code(err) == lib.SQLITE_ERROR }

// DiskFull tells whether err says that the file system has no space left.
func DiskFull(err error) bool { return code(err) == lib.SQLITE_FULL }

// IOFailed tells whether err came from the disk.
func IOFailed(err error) bool { return code(err) == lib.SQLITE_IOERR }

// SyncFailed tells whether the disk refused to make data durable; nothing written since the last good
// sync can be trusted then, not even after a later sync succeeds.
func SyncFailed(err error) bool {
	var e *modernc.Error
	return errors.As(err, &e) && (e.Code() == lib.SQLITE_IOERR_FSYNC || e.Code() == lib.SQLITE_IOERR_DIR_FSYNC)
}
