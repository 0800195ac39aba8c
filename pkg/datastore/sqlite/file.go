package sqlite

import (
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrDamaged says that a database cannot be read as it should.
var ErrDamaged = errors.New("database is damaged")

// Header reads the start of a database without SQLite, which changes files by opening them. It returns
// the number kept by PRAGMA user_version as of the last checkpoint. A missing or empty file does not
// exist. Do not call it for a database this process has open: closing the file would drop its locks.
func Header(path string) (exists bool, userVersion uint32, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, err
	}
	defer f.Close()
	head := make([]byte, 100)
	switch _, err := io.ReadFull(f, head); {
	case errors.Is(err, io.EOF):
		return false, 0, nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return true, 0, fmt.Errorf("%w: %s ends within its header", ErrDamaged, path)
	case err != nil:
		return true, 0, err
	}
	if string(head[:16]) != "SQLite format 3\x00" {
		return true, 0, fmt.Errorf("%w: %s is no SQLite file", ErrDamaged, path)
	}
	return true, binary.BigEndian.Uint32(head[60:]), nil // offset of user_version in the file format
}

// Create makes an empty file for a database that only this user can read. SQLite gives the files beside
// it the same mode.
func Create(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// With opens a database, calls do and closes it.
func With(path string, do func(*Conn) error, pragmas ...string) error {
	c, err := Open(path, append([]string{"busy_timeout = 10000"}, pragmas...)...)
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.Close())
}

// Check lets SQLite verify the structure of the whole file. The error for a bad one is Malformed.
func Check(c *Conn) error {
	var verdict string
	err := c.Each("PRAGMA quick_check(1)", func(row []driver.Value) error {
		verdict = Text(row[0])
		return nil
	})
	if err != nil {
		return fmt.Errorf("check database: %w", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("check database: %w: %s", ErrDamaged, verdict)
	}
	return nil
}

// Copy writes a compact copy of the database's present state to a new file. It may run while the
// database is in use, also by another process; writes go on meanwhile.
func Copy(from, to string) error {
	if err := Create(to); err != nil {
		return err
	}
	return With(from, func(c *Conn) error { return c.Exec("VACUUM INTO ?", to) }, "query_only = OFF")
}
