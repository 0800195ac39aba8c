package push

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// maxReply is the longest answer of a redis server that is read, in bytes.
const maxReply = 4096

// sortedSet adds values to a sorted set of a redis server: one for each device, by time. Of the protocol (RESP 2) it needs four commands.
type sortedSet struct {
	address, password string
	database          int

	conn   net.Conn
	reader *bufio.Reader
}

func newRedis(c *v1beta1.PushRedis, password string) (sender, error) {
	if c.Client == nil {
		return nil, errors.New("redisClientConfig: is missing")
	}
	if _, _, err := net.SplitHostPort(c.Client.Addr); err != nil {
		return nil, fmt.Errorf("redisClientConfig.addr: %q is not host:port", c.Client.Addr)
	}
	if c.Client.DB < 0 {
		return nil, fmt.Errorf("redisClientConfig.db: %d is not the number of a database", c.Client.DB)
	}
	return &sortedSet{address: c.Client.Addr, password: password, database: c.Client.DB}, nil
}

// send adds one member; the key and the form of members are those of the family.
func (r *sortedSet) send(ctx context.Context, s Sample) error {
	if err := r.connect(ctx); err != nil {
		return err
	}
	stamp := strconv.FormatInt(s.Time.UnixMilli(), 10)
	err := r.do(ctx, "ZADD", s.Device, stamp, "TimeStamp: "+stamp+" PropertyName: "+s.Property+" data: "+s.Value)
	if refused := (*refusal)(nil); err != nil && !errors.As(err, &refused) {
		r.close()
	}
	return err
}

func (r *sortedSet) connect(ctx context.Context) error {
	if r.conn != nil {
		return nil
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", r.address)
	if err != nil {
		return err
	}
	r.conn, r.reader = c, bufio.NewReaderSize(c, maxReply)
	if r.password != "" {
		err = r.do(ctx, "AUTH", r.password)
	}
	if err == nil && r.database != 0 {
		err = r.do(ctx, "SELECT", strconv.Itoa(r.database))
	}
	if err != nil {
		r.close()
	}
	return err
}

// refusal is what a server says when it does not want to.
type refusal struct{ text string }

func (r *refusal) Error() string { return "redis: " + r.text }

// do sends a command and reads a simple answer.
func (r *sortedSet) do(ctx context.Context, words ...string) error {
	if end, ok := ctx.Deadline(); ok {
		if err := r.conn.SetDeadline(end); err != nil {
			return err
		}
	} else if err := r.conn.SetDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(r.conn, command(words)); err != nil {
		return err
	}
	line, err := r.reader.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("redis: read answer: %w", err)
	}
	return readReply(string(line))
}

// command is an array of strings: *2\r\n$4\r\nAUTH\r\n…
func command(words []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b.String()
}

// readReply understands a status, a number and an error.
func readReply(line string) error {
	line = strings.TrimRight(line, "\r\n")
	switch {
	case strings.HasPrefix(line, "+"), strings.HasPrefix(line, ":"):
		return nil
	case strings.HasPrefix(line, "-"):
		return &refusal{line[1:]}
	}
	return fmt.Errorf("redis: answer %.40q makes no sense", line)
}

func (r *sortedSet) close() {
	if r.conn != nil {
		_ = r.conn.Close()
		r.conn = nil
	}
}
