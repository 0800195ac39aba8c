package edge

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/net/netutil"

	"github.com/kedge-io/kedge/pkg/rules/wire"
)

const (
	// callTimeout bounds how long a program waits for the target.
	callTimeout = 20 * time.Second
	maxPrograms = 64
)

// serviceBus is open while a rule wants messages of programs.
func (e *Edge) serviceBus(ctx context.Context) {
	for ctx.Err() == nil {
		changed := e.planChanged()
		if len(e.current().Services) > 0 {
			if err := e.serveBus(ctx); err != nil && ctx.Err() == nil {
				e.cfg.Log.Warn("the servicebus is closed", "address", e.cfg.ServiceBus, "error", err)
				wait, cancel := context.WithTimeout(ctx, lastRetry)
				<-wait.Done()
				cancel()
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// serveBus answers programs until no rule wants that any more.
func (e *Edge) serveBus(ctx context.Context) error {
	l, err := net.Listen("tcp", e.cfg.ServiceBus)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for ctx.Err() == nil {
			changed := e.planChanged()
			if len(e.current().Services) == 0 {
				stop()
			}
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
	}()
	return serve(ctx, &http.Server{Handler: http.HandlerFunc(e.answerProgram)}, netutil.LimitListener(l, maxPrograms))
}

// answerProgram answers as the family does: the status is always 200, and the code is in the body.
func (e *Edge) answerProgram(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	reply := e.replyTo(w, r)
	data, err := json.Marshal(reply)
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil {
		e.cfg.Log.Debug("program was not answered", "error", err)
	}
}

func (e *Edge) replyTo(w http.ResponseWriter, r *http.Request) wire.Reply {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxMessage))
	if err != nil {
		return wire.Reply{Code: http.StatusBadRequest, Msg: "can't read data from body of the http's request: " + err.Error()}
	}
	ask, err := wire.ReadAsk(body)
	if err != nil {
		return wire.Reply{Code: http.StatusBadRequest, Msg: err.Error()}
	}
	rule := ""
	for _, s := range e.current().Services {
		if s.TargetURL == ask.TargetURL {
			rule = s.Rule
		}
	}
	if rule == "" {
		return wire.Reply{Code: http.StatusBadRequest, Msg: fmt.Sprintf("url %s is not allowed and please make a rule for this url", ask.TargetURL)}
	}
	id := rand.Text()
	if e.queue.Waiting(rule) == 0 { // else it would come before what is older
		reply, err := e.call(r.Context(), rule, id, body)
		if err == nil {
			return reply
		}
		e.cfg.Log.Debug("message of a program waits", "rule", rule, "error", err)
	}
	if err := e.keep([]string{rule}, wire.Message{ID: id, Time: time.Now().UnixMilli(), Body: body}); err != nil {
		return wire.Reply{Code: http.StatusInternalServerError, Msg: err.Error()}
	}
	return wire.Reply{Code: http.StatusAccepted, Msg: "kept on this node until the target can be reached"}
}

// call has a server ask the target at once. An error says that nothing is known about the target.
func (e *Edge) call(ctx context.Context, rule, id string, body []byte) (wire.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.cfg.Server+wire.PathCall+"?rule="+url.QueryEscape(rule), bytes.NewReader(body))
	if err != nil {
		return wire.Reply{}, err
	}
	r.Header.Set(wire.HeaderID, id)
	resp, err := e.client.Do(r)
	if err != nil {
		return wire.Reply{}, err
	}
	defer closeBody(resp)
	if resp.StatusCode == http.StatusGone || resp.StatusCode == http.StatusRequestEntityTooLarge {
		return wire.Reply{Code: http.StatusBadRequest, Msg: refusal(resp).Error()}, nil
	}
	if resp.StatusCode != http.StatusOK {
		return wire.Reply{}, refusal(resp)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxBody+1))
	if err != nil {
		return wire.Reply{}, err
	}
	code, err := strconv.Atoi(resp.Header.Get(wire.HeaderStatus))
	if err != nil || len(answer) > wire.MaxBody {
		return wire.Reply{}, errors.New("the server's answer makes no sense")
	}
	if code < 200 || code > 299 {
		return wire.Reply{Code: code, Msg: "the target refused", Body: string(answer)}, nil
	}
	return wire.Reply{Code: http.StatusOK, Msg: "receive response from cloud successfully", Body: string(answer)}, nil
}
