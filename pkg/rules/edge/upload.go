package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/kedge-io/kedge/pkg/rules/wire"
)

const (
	// sendTimeout bounds one batch; a server gives up a little earlier.
	sendTimeout = 30 * time.Second
	maxOutcome  = 1 << 20
	// linkRetry is the longest pause when no server could be reached, and targetRetry when the target could not.
	linkRetry   = 10 * time.Second
	targetRetry = time.Minute
	// abroad is how many batches are on their way at once.
	abroad = 4
)

// newClient makes a client whose connections prove themselves anew: certificates are renewed in place.
func newClient(settings func() (*tls.Config, error)) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				cfg, err := settings()
				if err != nil {
					return nil, err
				}
				cfg = cfg.Clone()
				cfg.NextProtos = []string{"http/1.1"}
				d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: cfg}
				return d.DialContext(ctx, network, address)
			},
			MaxIdleConnsPerHost: abroad, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func closeBody(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}

// errGone says that servers do not know a rule any more.
var errGone = errors.New("the rule is gone")

func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
	err := fmt.Errorf("server answered %s: %s", resp.Status, strings.TrimSpace(string(text)))
	if resp.StatusCode == http.StatusGone {
		return errors.Join(errGone, err)
	}
	return err
}

// upload keeps one carrier for each rule that has messages.
func (e *Edge) upload(ctx context.Context) {
	var carriers sync.WaitGroup
	defer carriers.Wait()
	var mu sync.Mutex
	busy := map[string]bool{}
	slots := make(chan struct{}, abroad)
	for {
		woken := e.woken()
		for _, rule := range e.queue.Rules() {
			mu.Lock()
			started := busy[rule]
			busy[rule] = true
			mu.Unlock()
			if started {
				continue
			}
			carriers.Go(func() {
				e.carry(ctx, rule, slots)
				mu.Lock()
				delete(busy, rule)
				mu.Unlock()
				e.knock() // for what came while it ended
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-woken:
		}
	}
}

// carry sends the messages of a rule until there are none.
func (e *Edge) carry(ctx context.Context, rule string, slots chan struct{}) {
	pause, attempts := firstRetry, 0
	for ctx.Err() == nil && e.queue.Waiting(rule) > 0 {
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		heard := e.heard()
		moved, err := e.sendOldest(ctx, rule, attempts)
		<-slots
		if moved {
			pause, attempts = firstRetry, 0
		}
		if err == nil {
			continue
		}
		longest := linkRetry
		if reached := (*targetError)(nil); errors.As(err, &reached) {
			attempts, longest = attempts+1, targetRetry
			heard = nil // that a server is there is known
		}
		e.cfg.Log.Debug("messages wait", "rule", rule, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-heard:
			pause = firstRetry / 2
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, longest)
	}
}

// targetError says that a server was reached, and the target was not or refused.
type targetError struct{ reason string }

func (t *targetError) Error() string { return t.reason }

// sendOldest sends one batch; moved says that at least one message need not be sent again.
func (e *Edge) sendOldest(ctx context.Context, rule string, attempts int) (moved bool, err error) {
	entries, lost, err := e.queue.Oldest(rule)
	if err != nil || len(entries) == 0 {
		return false, err
	}
	b := wire.Batch{Rule: rule, Attempts: attempts, Lost: lost}
	for _, entry := range entries {
		b.Messages = append(b.Messages, entry.Message)
	}
	outcome, err := e.send(ctx, b)
	if errors.Is(err, errGone) {
		n, err := e.queue.Forget(rule)
		if err == nil {
			e.cfg.Log.Warn("messages are dropped: their rule is gone", "rule", rule, "messages", n)
		}
		return true, err
	}
	if err != nil {
		return false, err
	}
	if err := e.queue.Remove(rule, entries[:outcome.Done], lost); err != nil {
		return false, err
	}
	if outcome.Error != "" {
		return outcome.Done > 0, &targetError{outcome.Error}
	}
	return outcome.Done > 0, nil
}

func (e *Edge) send(ctx context.Context, b wire.Batch) (wire.Outcome, error) {
	data, err := json.Marshal(b)
	if err != nil {
		return wire.Outcome{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.cfg.Server+wire.PathMessages, bytes.NewReader(data))
	if err != nil {
		return wire.Outcome{}, err
	}
	resp, err := e.client.Do(r)
	if err != nil {
		return wire.Outcome{}, err
	}
	defer closeBody(resp)
	if resp.StatusCode != http.StatusOK {
		return wire.Outcome{}, refusal(resp)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxOutcome))
	if err != nil {
		return wire.Outcome{}, err
	}
	return wire.ReadOutcome(answer, len(b.Messages))
}
