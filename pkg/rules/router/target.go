package router

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kedge-io/kedge/pkg/rules/wire"
)

const (
	// targetTimeout bounds one message to a target.
	targetTimeout = 15 * time.Second
	// maxAttempts is how often a message is tried that its target answers with an error of its own.
	maxAttempts = 10
	// maxSaid is how much of an answer goes into an error, in bytes.
	maxSaid = 200
)

// newTargets makes the client for targets. It follows no redirects: where messages go is said by rules only.
func newTargets() *http.Client {
	d := &net.Dialer{Timeout: 5 * time.Second, Control: outside}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: d.DialContext, TLSHandshakeTimeout: 10 * time.Second, MaxIdleConns: 64, MaxIdleConnsPerHost: 4,
			MaxConnsPerHost: 32, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// errInside says that a target is not for rules.
var errInside = errors.New("rules do not reach this address: it is the server itself or its neighbour on the wire")

// outside refuses addresses behind which things are that trust whoever can reach them.
func outside(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := a.Addr().Unmap()
	if ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast() {
		return fmt.Errorf("%s: %w", ip, errInside)
	}
	return nil
}

// delivery is a message on its way to a target.
type delivery struct {
	url, rule, node string
	message         wire.Message
}

// send posts a message. An error says that no answer came.
func (r *Router) send(ctx context.Context, d delivery) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(d.message.Body))
	if err != nil {
		return nil, err
	}
	kind := "application/octet-stream"
	if json.Valid(d.message.Body) {
		kind = "application/json"
	}
	q.Header.Set("Content-Type", kind)
	q.Header.Set("User-Agent", "kedge/rules")
	for name, value := range map[string]string{
		wire.HeaderRule: d.rule, wire.HeaderNode: d.node, wire.HeaderTopic: d.message.Topic, wire.HeaderID: d.message.ID,
		wire.HeaderTime: strconv.FormatInt(d.message.Time, 10),
	} {
		if value != "" {
			q.Header.Set(name, value)
		}
	}
	return r.targets.Do(q)
}

// fate is what becomes of a message after an attempt.
type fate int

const (
	delivered fate = iota
	later          // try again
	refused        // never try again
)

// judge decides by the answer of a target; attempts is how often it was asked before.
func judge(code, attempts int) fate {
	switch {
	case code >= 200 && code < 300:
		return delivered
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests,
		code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return later
	case code >= 500 && attempts+1 < maxAttempts:
		return later
	}
	return refused
}

// deliver posts a message and says what becomes of it, and why.
func (r *Router) deliver(ctx context.Context, d delivery, attempts int) (fate, string) {
	ctx, cancel := context.WithTimeout(ctx, targetTimeout)
	defer cancel()
	resp, err := r.send(ctx, d)
	if errors.Is(err, errInside) {
		return refused, "deliver to target: " + reason(err)
	}
	if err != nil {
		return later, "deliver to target: " + reason(err)
	}
	defer drain(resp)
	f := judge(resp.StatusCode, attempts)
	if f == delivered {
		return f, ""
	}
	said, _ := io.ReadAll(io.LimitReader(resp.Body, maxSaid))
	return f, strings.TrimSpace("the target answered " + resp.Status + ": " + strings.ToValidUTF8(string(said), "?"))
}

// reason is an error of the client without the URL, in which there may be a password.
func reason(err error) string {
	if u := (interface{ Unwrap() error })(nil); errors.As(err, &u) {
		if inner := u.Unwrap(); inner != nil {
			return inner.Error()
		}
	}
	return err.Error()
}
