package push

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// maxTable is the longest name of a table in MySQL, in characters.
const maxTable = 64

// table adds rows to a table of MySQL or MariaDB: one table for each property, as the family has them.
type table struct {
	db   *sql.DB
	made bool
}

func newMySQL(c *v1beta1.PushMySQL, password string) (sender, error) {
	if c.Client == nil {
		return nil, errors.New("mysqlClientConfig: is missing")
	}
	if _, _, err := net.SplitHostPort(c.Client.Addr); err != nil {
		return nil, fmt.Errorf("mysqlClientConfig.addr: %q is not host:port", c.Client.Addr)
	}
	if c.Client.Database == "" || c.Client.UserName == "" {
		return nil, errors.New("mysqlClientConfig: database and userName are required")
	}
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.DBName, cfg.User, cfg.Passwd = "tcp", c.Client.Addr, c.Client.Database, c.Client.UserName, password
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = sendTimeout, sendTimeout, sendTimeout
	cfg.TLSConfig = "preferred"
	cfg.Logger = log.New(io.Discard, "", 0) // errors come back all the same
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("mysqlClientConfig: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return &table{db: db}, nil
}

func (t *table) send(ctx context.Context, s Sample) error {
	name := s.Namespace + "/" + s.Device + "/" + s.Property
	if len([]rune(name)) > maxTable {
		return fmt.Errorf("mysql: %q is too long for the name of a table, at most %d characters", name, maxTable)
	}
	name = "`" + strings.ReplaceAll(name, "`", "``") + "`"
	if !t.made {
		if _, err := t.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+name+" (id INT AUTO_INCREMENT PRIMARY KEY, ts DATETIME NOT NULL, field TEXT)"); err != nil {
			return fmt.Errorf("mysql: make table: %w", err)
		}
		t.made = true
	}
	if _, err := t.db.ExecContext(ctx, "INSERT INTO "+name+" (ts, field) VALUES (?, ?)", s.Time.UTC().Format(time.DateTime), s.Value); err != nil {
		var refused *mysql.MySQLError
		t.made = !errors.As(err, &refused) // somebody may have dropped it
		return fmt.Errorf("mysql: add row: %w", err)
	}
	return nil
}

func (t *table) close() { _ = t.db.Close() }
