package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// schemaVersion is the layout this build writes, kept in SQLite's user_version. 0 is a file that kine
// made: the same table without the version column.
const schemaVersion = 1

// compactKey is the name of the row whose prev_revision holds the compacted revision, as in kine. It
// is no key of the API.
const compactKey = "compact_rev_key"

// The apiserver keeps a key of the same name; it is stored under another, again as in kine.
const (
	apiCompactKey    = compactKey
	storedCompactKey = "compact_rev_key_apiserver"
)

func storedName(key string) string {
	if key == apiCompactKey {
		return storedCompactKey
	}
	return key
}

func apiName(stored string) string {
	if stored == storedCompactKey {
		return apiCompactKey
	}
	return stored
}

var errDamaged = errors.New("database is damaged")

// ErrNewer says that a newer kedge wrote the database.
var ErrNewer = errors.New("database was written by a newer version")

// checkHeader reads the first page of the file without SQLite, so that refusing a file changes nothing.
// A missing file is no error.
func checkHeader(path string) (exists bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 100)
	switch _, err := io.ReadFull(f, head); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return true, fmt.Errorf("%w: %s ends within its header", errDamaged, path)
	case err != nil:
		return true, err
	}
	if string(head[:16]) != "SQLite format 3\x00" {
		return true, fmt.Errorf("%w: %s is no SQLite file", errDamaged, path)
	}
	if v := binary.BigEndian.Uint32(head[60:]); v > schemaVersion { // offset of user_version in the file format
		return true, fmt.Errorf("%w: %s has layout %d, this build knows %d: run the newer kedge again or restore a snapshot made by this one",
			ErrNewer, path, v, schemaVersion)
	}
	return true, nil
}

// createSchema makes the table in an empty file. The columns are kine's, plus version. There is no
// index: the keys are held in memory (package keyindex), and every read goes by row id.
func createSchema(c *conn) error {
	statements := []string{
		"BEGIN IMMEDIATE",
		`CREATE TABLE kine (
			id INTEGER PRIMARY KEY,
			name TEXT,
			created INTEGER,
			deleted INTEGER,
			create_revision INTEGER,
			prev_revision INTEGER,
			lease INTEGER,
			value BLOB,
			old_value BLOB,
			version INTEGER
		)`,
		"INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease) VALUES (1, '" + compactKey + "', 1, 0, 0, 0, 0)",
		fmt.Sprintf("PRAGMA user_version = %d", schemaVersion),
		"COMMIT",
		"PRAGMA wal_checkpoint(TRUNCATE)", // checkHeader reads the version from the file itself
	}
	return execAll(c, statements)
}

// upgradeSchema turns a file of kine into ours: one more column, none of its indexes.
func upgradeSchema(c *conn) error {
	statements := []string{"BEGIN IMMEDIATE"}
	for _, index := range []string{
		"kine_name_index", "kine_name_id_index", "kine_id_deleted_index", "kine_prev_revision_index",
		"kine_name_prev_revision_uindex", "kine_id_compact_rev_key_with_prev_revision_index",
	} {
		statements = append(statements, "DROP INDEX IF EXISTS "+index)
	}
	columns, err := c.integer("SELECT COUNT(*) FROM pragma_table_info('kine') WHERE name = 'version'")
	if err != nil {
		return err
	}
	if columns == 0 {
		statements = append(statements, "ALTER TABLE kine ADD COLUMN version INTEGER")
	}
	return execAll(c, append(statements,
		// kine hides a version in the value of this key; the apiserver writes it anew
		"UPDATE kine SET deleted = 1, value = NULL WHERE name = '"+storedCompactKey+"'",
		fmt.Sprintf("PRAGMA user_version = %d", schemaVersion),
		"COMMIT",
		"PRAGMA wal_checkpoint(TRUNCATE)",
	))
}

func execAll(c *conn, statements []string) error {
	for _, s := range statements {
		if err := c.exec(s); err != nil {
			return err
		}
	}
	return nil
}

// prepareSchema creates or upgrades the schema as needed.
func prepareSchema(c *conn) error {
	tables, err := c.integer("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'kine'")
	if err != nil {
		return err
	}
	if tables == 0 {
		return createSchema(c)
	}
	version, err := c.integer("PRAGMA user_version")
	switch {
	case err != nil:
		return err
	case version > schemaVersion:
		return fmt.Errorf("%w: layout %d, this build knows %d", ErrNewer, version, schemaVersion)
	case version < schemaVersion:
		return upgradeSchema(c)
	}
	return nil
}
