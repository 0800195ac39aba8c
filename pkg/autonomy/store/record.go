package store

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
)

// fileHeader begins the file; its number changes with the format.
const fileHeader = "kedge autonomy store 1\n"

// recordMark begins every record; behind it come the length of the sealed part, 4 bytes, and the sealed part.
const recordMark = "\xfekr1"

const recordHead = len(recordMark) + 4

// appendRecord seals an entry.
func appendRecord(out []byte, aead cipher.AEAD, e Entry) []byte {
	plain := make([]byte, 0, len(e.Bucket)+len(e.Key)+len(e.Value)+32)
	var flags byte
	if e.Value != nil {
		flags = 1
	}
	plain = append(plain, flags)
	plain = binary.AppendUvarint(plain, e.Version)
	for _, s := range []string{e.Bucket, e.Key} {
		plain = binary.AppendUvarint(plain, uint64(len(s)))
		plain = append(plain, s...)
	}
	plain = append(plain, e.Value...)
	sealed := aead.Seal(nil, nil, plain, nil)
	out = append(out, recordMark...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(sealed)))
	return append(out, sealed...)
}

var errRecord = errors.New("record is damaged")

// readRecord opens the record at the beginning of data and returns how long it is.
func readRecord(data []byte, aead cipher.AEAD) (Entry, int, error) {
	if len(data) < recordHead || string(data[:len(recordMark)]) != recordMark {
		return Entry{}, 0, errRecord
	}
	n := int(binary.BigEndian.Uint32(data[len(recordMark):]))
	if n > maxRecord || len(data)-recordHead < n {
		return Entry{}, 0, errRecord
	}
	plain, err := aead.Open(nil, nil, data[recordHead:recordHead+n], nil)
	if err != nil || len(plain) == 0 {
		return Entry{}, 0, errRecord
	}
	e, err := parseEntry(plain)
	return e, recordHead + n, err
}

func parseEntry(plain []byte) (Entry, error) {
	e := Entry{}
	flags, rest := plain[0], plain[1:]
	version, n := binary.Uvarint(rest)
	if n <= 0 {
		return e, errRecord
	}
	e.Version, rest = version, rest[n:]
	for _, s := range []*string{&e.Bucket, &e.Key} {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return e, errRecord
		}
		*s, rest = string(rest[n:n+int(size)]), rest[n+int(size):]
	}
	if flags&1 != 0 {
		e.Value = append([]byte{}, rest...)
	}
	return e, nil
}

// found is what scan saw.
type found struct {
	records int
	end     int // of the last record that could be read
	lost    int // bytes before end that could not be read
}

// scan reads records and passes them on. Behind a damaged one it goes on with the next that is whole.
func scan(data []byte, aead cipher.AEAD, each func(Entry)) found {
	var f found
	for at := 0; at < len(data); {
		e, n, err := readRecord(data[at:], aead)
		if err == nil {
			f.lost += at - f.end
			at += n
			f.end = at
			f.records++
			each(e)
			continue
		}
		next := bytes.Index(data[at+1:], []byte(recordMark))
		if next < 0 {
			break
		}
		at += 1 + next
	}
	return f
}
