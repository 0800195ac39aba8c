package link

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// Traffic is what was exchanged with the server since the start: bytes as TLS makes them, without those of the packets around them.
type Traffic struct {
	Sent        int64 `json:"sent"`
	Received    int64 `json:"received"`
	Connections int64 `json:"connections"`
	Requests    int64 `json:"requests"`
}

// handshakeTime bounds the opening of a connection.
const handshakeTime = 15 * time.Second

// account counts. It is safe for concurrent use.
type account struct {
	sent, received, connections, requests atomic.Int64
}

// Traffic returns the counters.
func (l *Link) Traffic() Traffic {
	a := &l.account
	return Traffic{Sent: a.sent.Load(), Received: a.received.Load(), Connections: a.connections.Load(), Requests: a.requests.Load()}
}

// secure opens a connection to the server that is counted, and ends with its epoch.
func (l *Link) secure(ctx context.Context, e *epoch, settings *tls.Config, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	stop := context.AfterFunc(e.ctx, cancel)
	defer stop()
	c, err := l.sessions.Handshake(ctx, func(ctx context.Context) (net.Conn, error) { return l.dial(ctx, e, network, address) }, settings)
	if err != nil {
		return nil, err
	}
	return c, nil // and not a nil of another type
}

// dial opens a connection. Whether it is dead is found out by the tunnel, not by TCP.
func (l *Link) dial(ctx context.Context, e *epoch, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: -1}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	counting := &countedConn{Conn: c, account: &l.account, epoch: e}
	if !e.hold(counting) {
		_ = c.Close()
		return nil, errors.New("the link was lost")
	}
	l.account.connections.Add(1)
	return counting, nil
}

// countedConn counts what passes.
type countedConn struct {
	net.Conn
	account *account
	epoch   *epoch
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	c.epoch.release(c)
	return c.Conn.Close()
}

// Read implements net.Conn.
func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.account.received.Add(int64(n))
	return n, err
}

// Write implements net.Conn.
func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.account.sent.Add(int64(n))
	return n, err
}

// counted counts requests, and says at debug level what each of them carried. Requests look for a connection one after the other: while there is
// none, each of those that begin together would make its own, of which all but one are given up after the handshake.
type counted struct {
	*http.Transport
	account *account
	gate    chan struct{} // held while looking; nil for connections that are not shared
	log     *slog.Logger
}

// enter waits for the gate. leave is called when a connection is found, or when that has failed.
func (t *counted) enter(r *http.Request) (entered *http.Request, leave func(), err error) {
	if t.gate == nil {
		return r, func() {}, nil
	}
	select {
	case t.gate <- struct{}{}:
	case <-r.Context().Done():
		if r.Body != nil {
			_ = r.Body.Close() // as a RoundTripper must
		}
		return nil, nil, r.Context().Err()
	}
	leave = sync.OnceFunc(func() { <-t.gate })
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { leave() }}
	return r.WithContext(httptrace.WithClientTrace(r.Context(), trace)), leave, nil
}

// RoundTrip implements http.RoundTripper.
func (t *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	t.account.requests.Add(1)
	r, leave, err := t.enter(r)
	if err != nil {
		return nil, err
	}
	defer leave()
	if !t.log.Enabled(r.Context(), slog.LevelDebug) {
		return t.Transport.RoundTrip(r)
	}
	begin := time.Now()
	resp, err := t.Transport.RoundTrip(r)
	log := t.log.With("method", r.Method, "path", r.URL.RequestURI(), "agent", r.UserAgent(), "sent", r.ContentLength)
	if err != nil {
		log.Debug("the server did not answer", "error", err)
		return nil, err
	}
	log = log.With("code", resp.StatusCode, "type", resp.Header.Get("Content-Type"), "encoding", resp.Header.Get("Content-Encoding"), "unpacked", resp.Uncompressed)
	log.Debug("the server answers", "after", time.Since(begin))
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, nil // its body is a connection
	}
	body := &countedBody{ReadCloser: resp.Body}
	body.done = sync.OnceFunc(func() {
		log.Debug("the server has answered", "received", body.received.Load(), "after", time.Since(begin))
	})
	resp.Body = body
	return resp, nil
}

// countedBody counts what is read of an answer.
type countedBody struct {
	io.ReadCloser
	received atomic.Int64
	done     func()
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.received.Add(int64(n))
	if err != nil {
		b.done()
	}
	return n, err
}

// Close implements io.Closer.
func (b *countedBody) Close() error {
	b.done()
	return b.ReadCloser.Close()
}
