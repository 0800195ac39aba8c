// Command appender is the load of the power cut scenario: it writes numbered records and prints each number when the write has
// returned. "appender synced FILE" appends and syncs every record. "appender direct FILE" overwrites blocks past the page cache
// without a sync, which a disk may lose.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

const (
	block  = 4096
	blocks = 4096 // of the file of direct mode
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "appender:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: appender synced|direct FILE")
	}
	if args[0] == "direct" {
		return direct(args[1])
	}
	return synced(args[1])
}

// synced goes on after the last whole record of an earlier run.
func synced(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	for n := st.Size() / 8; ; n++ {
		if _, err := f.WriteAt(binary.BigEndian.AppendUint64(nil, uint64(n)), n*8); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// direct writes record n into block n of a file that exists in full before.
func direct(path string) error {
	if err := os.WriteFile(path, make([]byte, block*blocks), 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	syscall.Sync()
	buf := aligned()
	for n := uint64(1); n < blocks; n++ {
		binary.BigEndian.PutUint64(buf, n)
		if _, err := f.WriteAt(buf, int64(n*block)); err != nil {
			return err
		}
		fmt.Println(n)
	}
	return nil
}

// aligned is a block at an address that O_DIRECT accepts.
func aligned() []byte {
	buf := make([]byte, 2*block)
	skip := block - int(uintptr(unsafe.Pointer(&buf[0]))%block)
	return buf[skip : skip+block]
}
