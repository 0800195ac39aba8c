package control

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// Client is the test's end of the channel. Its calls may run at the same time.
type Client struct {
	// connect makes the one HTTP/2 connection at the first call, and returns it to all the others.
	connect func() (*http.ClientConn, error)
	stream  io.Closer
}

// NewClient speaks over the stream, which it owns from now on. The other end may start to answer much later.
func NewClient(stream io.ReadWriteCloser) *Client {
	dial := func(context.Context, string, string) (net.Conn, error) { return streamConn{stream}, nil }
	transport := &http.Transport{DialContext: dial, Protocols: protocols(), HTTP2: windows(), DisableCompression: true}
	return &Client{stream: stream, connect: sync.OnceValues(func() (*http.ClientConn, error) {
		return transport.NewClientConn(context.Background(), "http", "guest:80")
	})}
}

// Close ends the channel and every call on it.
func (c *Client) Close() error { return c.stream.Close() }

// do sends a request and turns every status but 200 into an error with the guest's text.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body io.Reader) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "guest", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	resp, err := conn.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		_ = resp.Body.Close()
		return nil, errors.New(strings.TrimSpace(string(text)))
	}
	return resp, nil
}

// Ping waits for the guest to answer and returns its boot identity.
func (c *Client) Ping(ctx context.Context) (string, error) {
	resp, err := c.do(ctx, http.MethodGet, pathPing, nil, nil)
	if err != nil {
		return "", fmt.Errorf("ping: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	id, err := io.ReadAll(resp.Body)
	return string(id), err
}

// Exec runs the command and returns when it ended: nil for exit code 0, *ExitError for another code, and another error when it
// could not be started or the guest went away. The end of ctx kills its process group.
func (c *Client) Exec(ctx context.Context, cmd Command) error {
	if cmd.Dir == "" {
		cmd.Dir = "/root"
	}
	arg, err := json.Marshal(cmd)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodPost, pathExec, url.Values{"command": {string(arg)}}, cmd.Stdin)
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	return readFrames(resp.Body, cmd.Stdout, cmd.Stderr)
}

// readFrames copies output to the writers until the exit frame.
func readFrames(r io.Reader, stdout, stderr io.Writer) error {
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		var head [frameHeader]byte
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return fmt.Errorf("exec: output ended early: %w", err)
		}
		body := io.LimitReader(br, int64(binary.BigEndian.Uint32(head[1:])))
		switch head[0] {
		case frameStdout, frameStderr:
			w := stdout
			if head[0] == frameStderr {
				w = stderr
			}
			if w == nil {
				w = io.Discard
			}
			if _, err := io.Copy(w, body); err != nil {
				return fmt.Errorf("exec: copy output: %w", err)
			}
		case frameFail:
			text, err := io.ReadAll(body)
			return errors.Join(fmt.Errorf("exec: %s", text), err)
		case frameExit:
			var code int32
			if err := binary.Read(body, binary.BigEndian, &code); err != nil {
				return fmt.Errorf("exec: read exit code: %w", err)
			}
			if code != 0 {
				return &ExitError{Code: int(code)}
			}
			return nil
		default:
			return fmt.Errorf("exec: unknown frame %d", head[0])
		}
	}
}

// Put writes a file in the guest, making its directories; when it returns nil the file is on the guest's disk for good.
func (c *Client) Put(ctx context.Context, path string, mode fs.FileMode, r io.Reader) error {
	q := url.Values{"path": {path}, "mode": {strconv.FormatUint(uint64(mode.Perm()), 8)}}
	resp, err := c.do(ctx, http.MethodPut, pathFile, q, r)
	if err != nil {
		return fmt.Errorf("put %s: %w", path, err)
	}
	return resp.Body.Close()
}

// Get copies a file of the guest into w.
func (c *Client) Get(ctx context.Context, path string, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, pathFile, url.Values{"path": {path}}, nil)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	return nil
}

// Dial connects from inside the guest to one of its own addresses, tcp or unix. It works with the guest's links down.
// ctx limits the connecting only.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	out, in := io.Pipe()
	resp, err := c.do(life, http.MethodPost, pathDial, url.Values{"network": {network}, "address": {address}}, out)
	if err != nil || !stop() {
		cancel()
		return nil, fmt.Errorf("dial %s in the guest: %w", address, errors.Join(err, context.Cause(ctx)))
	}
	local, remote := net.Pipe()
	go func() {
		_, err := io.Copy(in, remote)
		_ = in.CloseWithError(err)
		cancel()
	}()
	go func() {
		_, _ = io.Copy(remote, resp.Body)
		_ = resp.Body.Close()
		_ = remote.Close()
	}()
	return local, nil
}
