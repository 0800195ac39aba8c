package mvcc

import (
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/kedge-io/kedge/pkg/datastore/sqlite"
)

// schemaVersion is the layout this build writes, kept in SQLite's user_version. 0 is a file that kine
// made: the same table without the columns version and sum; 1 had no sum.
const schemaVersion = 2

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

// ErrNewer says that a newer kedge wrote the database.
var ErrNewer = errors.New("database was written by a newer version")

// checkVersion refuses a file of a newer layout before SQLite has touched it, so that nothing changes.
// A missing or empty file is no error.
func checkVersion(path string) (exists bool, err error) {
	exists, version, err := sqlite.Header(path)
	if err != nil {
		return exists, err
	}
	if version > schemaVersion {
		return true, fmt.Errorf("%w: %s has layout %d, this build knows %d: run the newer kedge again or restore a snapshot made by this one",
			ErrNewer, path, version, schemaVersion)
	}
	return exists, nil
}

// createSchema makes the table in an empty file. The columns are kine's, plus version and sum. There is no
// index: the keys are held in memory (package keyindex), and every read goes by row id.
func createSchema(c *sqlite.Conn) error {
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
			version INTEGER,
			sum INTEGER
		)`,
		"INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease) VALUES (1, '" + compactKey + "', 1, 0, 0, 0, 0)",
		fmt.Sprintf("PRAGMA user_version = %d", schemaVersion),
		"COMMIT",
		"PRAGMA wal_checkpoint(TRUNCATE)", // checkHeader reads the version from the file itself
	}
	return execAll(c, statements)
}

// upgradeSchema turns a file of kine into ours: two more columns, none of its indexes.
func upgradeSchema(c *sqlite.Conn) error {
	statements := []string{"BEGIN IMMEDIATE"}
	for _, index := range []string{
		"kine_name_index", "kine_name_id_index", "kine_id_deleted_index", "kine_prev_revision_index",
		"kine_name_prev_revision_uindex", "kine_id_compact_rev_key_with_prev_revision_index",
	} {
		statements = append(statements, "DROP INDEX IF EXISTS "+index)
	}
	for _, column := range []string{"version", "sum"} {
		n, err := c.Integer("SELECT COUNT(*) FROM pragma_table_info('kine') WHERE name = ?", column)
		if err != nil {
			return err
		}
		if n == 0 {
			statements = append(statements, "ALTER TABLE kine ADD COLUMN "+column+" INTEGER")
		}
	}
	return execAll(c, append(statements,
		// kine hides a version in the value of this key; the apiserver writes it anew
		"UPDATE kine SET deleted = 1, value = NULL WHERE name = '"+storedCompactKey+"'",
		fmt.Sprintf("PRAGMA user_version = %d", schemaVersion),
		"COMMIT",
		"PRAGMA wal_checkpoint(TRUNCATE)",
	))
}

func execAll(c *sqlite.Conn, statements []string) error {
	for _, s := range statements {
		if err := c.Exec(s); err != nil {
			return err
		}
	}
	return nil
}

// prepareSchema creates or upgrades the schema as needed; a file that must have one is damaged if it
// has not.
func prepareSchema(c *sqlite.Conn, mustExist bool) error {
	tables, err := c.Integer("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'kine'")
	if err != nil {
		return err
	}
	if tables == 0 {
		if mustExist {
			return fmt.Errorf("%w: the table of keys is missing", sqlite.ErrDamaged)
		}
		return createSchema(c)
	}
	version, err := c.Integer("PRAGMA user_version")
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

// Verify checks the structure of a database that nobody has open, and returns its current revision.
func Verify(path string) (revision int64, err error) {
	exists, err := checkVersion(path)
	if err != nil {
		return 0, err
	}
	if !exists {
		return 0, fmt.Errorf("%w: %s is empty", sqlite.ErrDamaged, path)
	}
	err = sqlite.With(path, func(c *sqlite.Conn) error {
		if err := sqlite.Check(c); err != nil {
			return err
		}
		version, err := c.Integer("PRAGMA user_version")
		if err != nil {
			return err
		}
		if version == schemaVersion {
			bad, err := eachRow(c, func([]driver.Value) {})
			if err != nil {
				return err
			}
			if len(bad) > 0 {
				return fmt.Errorf("%w: %d rows have changed", sqlite.ErrDamaged, len(bad))
			}
		}
		revision, err = c.Integer("SELECT MAX(MAX(id), MAX(CASE WHEN name = ? THEN prev_revision ELSE 0 END)) FROM kine", compactKey)
		return err
	})
	return revision, err
}

// SkipRevisions moves the current revision of a database that nobody has open forward by n and marks
// everything before as compacted. A restored database needs it: clients that saw revisions newer than
// the copy must read everything anew instead of taking new revisions for ones they know.
func SkipRevisions(path string, n int64) error {
	return sqlite.With(path, func(c *sqlite.Conn) error { return skipRevisions(c, n) })
}

func skipRevisions(c *sqlite.Conn, n int64) error {
	return c.Exec("UPDATE kine SET prev_revision = MAX(prev_revision, (SELECT MAX(id) FROM kine)) + ? WHERE name = ?", n, compactKey)
}
