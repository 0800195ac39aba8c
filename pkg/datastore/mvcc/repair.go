package mvcc

import (
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
)

// Repair is what was done about one row whose content had changed on the disk.
type Repair struct {
	Key      string
	Revision int64
	// From is the database the row was taken from again. Empty means that no copy had it: the row was
	// removed, and the key has the value before it, if there is one, or is gone.
	From string
}

// checksum covers everything that makes a row. SQLite notices damage to the structure of its file only.
func checksum(e keyindex.Entry, value []byte) int64 {
	var head [32]byte
	for i, n := range []int64{e.Mod, e.Create, e.Version, e.Lease} {
		binary.LittleEndian.PutUint64(head[8*i:], uint64(n))
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, head[:])
	sum = crc32.Update(sum, table, []byte(e.Key))
	return int64(crc32.Update(sum, table, value))
}

// wholeRow reads everything that belongs to a row, for parseRow.
const wholeRow = "SELECT id, name, created, deleted, create_revision, lease, version, value, sum FROM kine"

// parseRow turns the first seven columns of wholeRow into an entry.
func parseRow(row []driver.Value) keyindex.Entry {
	id := sqlite.Int(row[0])
	e := keyindex.Entry{Key: apiName(sqlite.Text(row[1])), Rev: keyindex.Rev{Mod: id}}
	if sqlite.Int(row[3]) != 0 {
		return e
	}
	e.Create, e.Lease, e.Version = sqlite.Int(row[4]), sqlite.Int(row[5]), sqlite.Int(row[6])
	if sqlite.Int(row[2]) != 0 { // kine writes 0 as the revision that created the key
		e.Create, e.Version = id, 1
	}
	return e
}

// damage is a row whose content does not have the checksum it was written with.
type damage struct {
	key string
	// The checksum in the row and that of its content: a copy must have one of them, the former if the
	// content has changed, the latter if the checksum has.
	stored, computed int64
}

// inspect compares a row read by wholeRow with its checksum. Rows of kine have none.
func inspect(row []driver.Value) (d damage, ok bool) {
	if row[8] == nil {
		return damage{}, true
	}
	var value []byte
	e := parseRow(row)
	if !e.Deleted() {
		value = sqlite.Blob(row[7])
	}
	d = damage{key: e.Key, stored: sqlite.Int(row[8]), computed: checksum(e, value)}
	return d, d.stored == d.computed
}

// eachRow reads all rows in the order they were written, and returns the ids of the damaged ones.
func eachRow(c *sqlite.Conn, visit func(row []driver.Value)) (map[int64]damage, error) {
	bad := map[int64]damage{}
	err := c.Each(wholeRow+" ORDER BY id", func(row []driver.Value) error {
		if d, ok := inspect(row); !ok {
			bad[sqlite.Int(row[0])] = d
		}
		visit(row)
		return nil
	})
	return bad, err
}

// repairRows takes damaged rows again from the first of the donors that has them whole. Rows never change,
// so a copy made at any time will do. Rows that no donor has are removed.
func repairRows(c *sqlite.Conn, bad map[int64]damage, donors []string) ([]Repair, error) {
	if err := c.Exec("BEGIN IMMEDIATE"); err != nil {
		return nil, err
	}
	var repairs []Repair
	lost := false
	for id, d := range bad {
		r := Repair{Key: d.key, Revision: id}
		for _, donor := range donors {
			if ok, err := takeFrom(c, donor, id, d); err == nil && ok {
				r.From = donor
				break
			}
		}
		if r.From == "" {
			lost = true
			if err := c.Run("DELETE FROM kine WHERE id = ?", id); err != nil {
				return nil, err
			}
		}
		repairs = append(repairs, r)
	}
	if lost { // what clients know of these keys is not true any more: make them read everything anew
		if err := skipRevisions(c, skipAfterLoss); err != nil {
			return nil, fmt.Errorf("move revision forward: %w", err)
		}
	}
	return repairs, c.Exec("COMMIT")
}

const skipAfterLoss = 1000

// takeFrom copies a row from the donor, if that has it whole.
func takeFrom(c *sqlite.Conn, donor string, id int64, d damage) (bool, error) {
	var found []any
	err := sqlite.With(donor, func(c *sqlite.Conn) error {
		return c.Each(wholeRow+" WHERE id = ?", func(row []driver.Value) error {
			copied, ok := inspect(row)
			if ok && row[8] != nil && (copied.stored == d.stored || copied.stored == d.computed) {
				for _, v := range row {
					found = append(found, v)
				}
			}
			return nil
		}, id)
	}, "query_only = ON")
	if err != nil || found == nil {
		return false, err
	}
	// prev_revision is for kine only, and stays as it is
	err = c.Run(`UPDATE kine SET name = ?2, created = ?3, deleted = ?4, create_revision = ?5, lease = ?6, version = ?7,
		value = ?8, sum = ?9 WHERE id = ?1`, found...)
	return err == nil, err
}
