// Package join lets machines become nodes: tokens, the identity of a node, the join API on the server's shared port, and the
// client that a node asks it with.
//
// A node is known by its key. It makes the key itself, proves in every TLS handshake that it holds it, and gets certificates
// for signing requests only; the server remembers which key a node name belongs to. The client sends its token to nobody
// before the certificate authority matches the token.
// It is a feature: server wires the server's half, agent the client, cli the token commands.
package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/kedge-io/kedge/pkg/certs"
)

// Where the join API is served.
const (
	// PathCACerts gives everybody the server's authority: a client compares it with its token.
	PathCACerts = "/cacerts"
	// PathPing tells everybody that a kedge server is here.
	PathPing = "/ping"
	// Prefix is the rest of the API; all of it wants a token or a node's certificate.
	Prefix = "/v1-kedge/"

	pathReadyz      = Prefix + "readyz"
	pathConfig      = Prefix + "config"
	pathCertificate = Prefix + "certificate"
	pathMaterial    = Prefix + "server/material"
	pathMember      = Prefix + "server/member"
)

// servingName is a name that every serving certificate of an API server carries and no other certificate may carry: clients
// check it instead of the address they dial, which changes behind routers that translate addresses.
const servingName = "kubernetes"

// Limits of sizes, in bytes.
const (
	maxRequest  = 16 << 10
	maxResponse = 1 << 20
	maxBundle   = 256 << 10
)

// certificateRequest is the body of a POST to pathCertificate; the answer is a PEM chain.
type certificateRequest struct {
	Node string     `json:"node"`
	IPs  []net.IP   `json:"ips"`
	Kind certs.Kind `json:"kind"`
	CSR  string     `json:"csr"` // PEM
}

// refusal is the body of every answer that is not a success.
type refusal struct {
	Code    code   `json:"code"`
	Message string `json:"message"`
}

// code says to a client what is wrong, so that it can tell its operator what to do.
type code string

const (
	codeTokenNeeded  code = "token-needed"  // neither a token nor a valid certificate
	codeTokenWrong   code = "token-wrong"   // no token of this server
	codeTokenUnknown code = "token-unknown" // a bootstrap token that does not exist (any more)
	codeTokenExpired code = "token-expired"
	codeNameTaken    code = "node-name-taken"
	codeForeign      code = "not-your-own" // a node asked for what belongs to another
	codeRequest      code = "bad-request"
	codeServerToken  code = "server-token-needed" // what only servers may ask
	codeAlone        code = "server-is-alone"     // its datastore is not for several
	codeBusy         code = "busy"
	codeNotReady     code = "not-ready"
)

// Several is what a server tells servers that join it.
type Several struct {
	// Material returns what all servers must have alike: authorities and keys. Only the server token opens it.
	Material func() ([]byte, error)
	// Admit makes room for a member of the datastore and returns all members; see etcd.Member.
	Admit func(ctx context.Context, name, peerURL string) (string, error)
	// Busy is what errors of Admit are after which a later attempt may succeed.
	Busy error
}

// memberRequest is the body of a POST to pathMember.
type memberRequest struct {
	Name    string `json:"name"`
	PeerURL string `json:"peerURL"`
}

// memberAnswer is the answer to it.
type memberAnswer struct {
	Members string `json:"members"` // name=URL,name=URL
}

// server lets nobody pass but who shows the server token: neither agent tokens, nor tokens that expire, nor certificates of nodes.
func (s *Server) server(r *http.Request) *failure {
	t, ok := presented(r)
	if !ok {
		return refuse(http.StatusUnauthorized, codeServerToken, "servers join with the server token")
	}
	if t.BootstrapID == "" && t.User == userServer {
		good, err := s.cfg.Tokens.check(t)
		switch {
		case err != nil:
			return notReady(err)
		case good && s.cfg.Several == nil:
			return refuse(http.StatusConflict, codeAlone, "this server keeps its data for itself")
		case good:
			return nil
		}
		if agent, err := s.cfg.Tokens.check(Token{User: userNode, Secret: t.Secret}); err != nil || !agent {
			return refuse(http.StatusUnauthorized, codeTokenWrong, "the token is not one of this server")
		}
	}
	return refuse(http.StatusForbidden, codeServerToken, "servers join with the server token")
}

func (s *Server) material(r *http.Request) ([]byte, *failure) {
	if fail := s.server(r); fail != nil {
		return nil, fail
	}
	body, err := s.cfg.Several.Material()
	if err != nil {
		return nil, notReady(err)
	}
	return body, nil
}

func (s *Server) member(w http.ResponseWriter, r *http.Request) ([]byte, *failure) {
	if fail := s.server(r); fail != nil { // before anything is read from a stranger
		return nil, fail
	}
	var request memberRequest
	if fail := readBody(w, r, &request); fail != nil {
		return nil, fail
	}
	return s.limited(s.writes, r, func(r *http.Request) ([]byte, *failure) {
		members, err := s.cfg.Several.Admit(r.Context(), request.Name, request.PeerURL)
		switch {
		case errors.Is(err, s.cfg.Several.Busy):
			return nil, &failure{http.StatusServiceUnavailable, codeNotReady, "it cannot take another server at this moment", err}
		case err != nil:
			return nil, refuse(http.StatusConflict, codeRequest, "%v", err)
		}
		body, err := json.Marshal(memberAnswer{members})
		if err != nil {
			return nil, notReady(err)
		}
		return body, nil
	})
}

// token reads the token of the settings; that of a server must be a server token.
func (cfg ClientConfig) token() (Token, error) {
	if !cfg.AsServer {
		return ParseToken(cfg.Token)
	}
	const want = "a server joins with the server token of another (sudo cat /var/lib/kedge/server/token)"
	if cfg.Token == "" {
		return Token{}, errors.New("--token is not set: " + want)
	}
	t, err := ParseToken(cfg.Token)
	switch {
	case err != nil:
		return t, err
	case t.BootstrapID != "":
		return t, errors.New("--token: tokens of kedge token create are for agents: " + want)
	case t.User == userNode:
		return t, errors.New("--token: this is an agent token: " + want)
	}
	t.User = userServer
	return t, nil
}

// Material asks another server for what all servers must have alike. It waits until one answers, and fails when waiting would not help.
func (c *Client) Material(ctx context.Context) ([]byte, error) {
	return c.insist(ctx, func(ctx context.Context, server string) ([]byte, *Problem) {
		return c.do(ctx, server, http.MethodGet, pathMaterial, nil)
	})
}

// Enter asks another server to take a member into the datastore, and returns all members as name=URL,name=URL.
func (c *Client) Enter(ctx context.Context, name, peerURL string) (string, error) {
	body, err := json.Marshal(memberRequest{name, peerURL})
	if err != nil {
		return "", err
	}
	data, err := c.insist(ctx, func(ctx context.Context, server string) ([]byte, *Problem) {
		return c.do(ctx, server, http.MethodPost, pathMember, body)
	})
	if err != nil {
		return "", err
	}
	var answer memberAnswer
	if err := json.Unmarshal(data, &answer); err != nil {
		return "", fmt.Errorf("understand the answer: %w", err)
	}
	return answer.Members, nil
}

// insist asks until somebody answers or says something that waiting does not change.
func (c *Client) insist(ctx context.Context, do func(context.Context, string) ([]byte, *Problem)) ([]byte, error) {
	told := ""
	for attempt := 0; ; attempt++ {
		data, problem := c.ask(ctx, do)
		switch {
		case problem == nil:
			return data, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case problem.Permanent:
			return nil, problem
		case problem.Line != told:
			told = problem.Line
			c.cfg.Log.Warn("cannot join the other servers yet, trying again", "reason", told)
		}
		if err := sleep(ctx, max(problem.retryAfter, min(backoff(attempt, rand.Float64()), 5*time.Second))); err != nil {
			return nil, err
		}
	}
}
