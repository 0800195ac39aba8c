package join

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/kedge-io/kedge/pkg/certs"
)

// How many requests a server works on at once; more get 429 and come back later.
const (
	maxReads  = 20
	maxWrites = 10
)

// bodyTime is how long a client may take to send a request's body, workTime how long its answer may take.
const (
	bodyTime = 10 * time.Second
	workTime = 10 * time.Second
)

// ServerConfig is what the join API needs to know.
type ServerConfig struct {
	// CABundle is the PEM that /cacerts serves and tokens name.
	CABundle []byte
	Tokens   TokenFiles
	// Secrets reaches the Secrets of Namespace.
	Secrets corev1client.SecretInterface
	// Identify returns the name of the node whose valid certificate the request was made with; an error for everybody else.
	Identify func(*http.Request) (node string, err error)
	// Signer returns who signs for a node whose identity is proven.
	Signer func(certs.NodeIdentity) (certs.Signer, error)
	// LocalNode is the node on this machine, whose name nobody can have by asking; empty for none.
	LocalNode string
	// Settings returns what the cluster's nodes need to know, as JSON.
	Settings func() ([]byte, error)
	// Several is what further servers are told; nil on a server that keeps its data for itself.
	Several *Several
	// Ready says why nodes should not start yet, or nil.
	Ready func(context.Context) error
	Log   *slog.Logger
	// Clock answers for the time; nil means time.Now.
	Clock func() time.Time
}

// Server is the join API, an HTTP handler for PathCACerts, PathPing and everything below Prefix.
type Server struct {
	cfg           ServerConfig
	identities    Identities
	bootstrap     BootstrapTokens
	reads, writes chan struct{}
}

// NewServer prepares the join API.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Secrets == nil || cfg.Identify == nil || cfg.Signer == nil || cfg.Settings == nil || cfg.Ready == nil || cfg.Log == nil {
		return nil, errors.New("join API: secrets, identify, signer, settings, ready and log are required")
	}
	if block, _ := pem.Decode(cfg.CABundle); block == nil {
		return nil, errors.New("join API: the authority bundle is not PEM")
	}
	return &Server{
		cfg: cfg, identities: Identities{cfg.Secrets}, bootstrap: BootstrapTokens{Secrets: cfg.Secrets, Clock: cfg.Clock},
		reads: make(chan struct{}, maxReads), writes: make(chan struct{}, maxWrites),
	}, nil
}

// failure is an answer that is not a success.
type failure struct {
	status int
	code   code
	text   string
	err    error // for the server's log; nil when the client is to blame
}

func refuse(status int, c code, format string, args ...any) *failure {
	return &failure{status: status, code: c, text: fmt.Sprintf(format, args...)}
}

// notReady answers when a part behind the API could not be asked.
func notReady(err error) *failure {
	return &failure{status: http.StatusServiceUnavailable, code: codeNotReady, text: "the server cannot answer yet", err: err}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body []byte
	var fail *failure
	content := "application/json"
	switch r.Method + " " + r.URL.Path {
	case "GET " + PathCACerts, "HEAD " + PathCACerts:
		body, content = s.cfg.CABundle, "application/x-pem-file"
	case "GET " + PathPing, "HEAD " + PathPing:
		body, content = []byte("pong\n"), "text/plain"
	case "GET " + pathReadyz:
		body, fail = s.limited(s.reads, r, s.readyz)
	case "GET " + pathConfig:
		body, fail = s.limited(s.reads, r, s.settings)
	case "POST " + pathCertificate:
		body, fail = s.post(w, r)
		content = "application/x-pem-file"
	case "GET " + pathMaterial:
		body, fail = s.limited(s.writes, r, s.material)
	case "POST " + pathMember:
		body, fail = s.member(w, r)
	default:
		fail = refuse(http.StatusNotFound, codeRequest, "kedge serves nothing at %s %.100s", r.Method, r.URL.Path)
	}
	if fail != nil {
		s.writeFailure(w, r, fail)
		return
	}
	w.Header().Set("Content-Type", content)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // the client is gone when this fails
}

func (s *Server) writeFailure(w http.ResponseWriter, r *http.Request, f *failure) {
	if f.err != nil {
		s.cfg.Log.Debug("join request failed", "path", r.URL.Path, "from", r.RemoteAddr, "error", f.err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	switch f.status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(4)))
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="kedge"`)
	}
	w.WriteHeader(f.status)
	_ = json.NewEncoder(w).Encode(refusal{f.code, f.text})
}

// limited runs do unless too many run already.
func (s *Server) limited(slots chan struct{}, r *http.Request, do func(*http.Request) ([]byte, *failure)) ([]byte, *failure) {
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		ctx, cancel := context.WithTimeout(r.Context(), workTime)
		defer cancel()
		return do(r.WithContext(ctx))
	default:
		return nil, refuse(http.StatusTooManyRequests, codeBusy, "many nodes are joining: come back in a moment")
	}
}

// caller is who asks: a node with a valid certificate, somebody with a token, or both.
type caller struct {
	node  string
	token bool
}

// authenticate finds out who asks; a request by nobody is a failure.
func (s *Server) authenticate(r *http.Request) (caller, *failure) {
	var c caller
	if node, err := s.cfg.Identify(r); err == nil {
		c.node = node
	}
	fail := s.checkToken(r)
	c.token = fail == nil
	if c.token || c.node != "" {
		return c, nil
	}
	return c, fail
}

func (s *Server) checkToken(r *http.Request) *failure {
	t, ok := presented(r)
	if !ok {
		return refuse(http.StatusUnauthorized, codeTokenNeeded, "neither a token nor a valid node certificate")
	}
	if t.BootstrapID == "" {
		good, err := s.cfg.Tokens.check(t)
		switch {
		case err != nil:
			return notReady(err)
		case !good:
			return refuse(http.StatusUnauthorized, codeTokenWrong, "the token is not one of this server")
		}
		return nil
	}
	switch err := s.bootstrap.check(r.Context(), t); {
	case errors.Is(err, errTokenUnknown):
		return refuse(http.StatusUnauthorized, codeTokenUnknown, "bootstrap token %s is not known", t.BootstrapID)
	case errors.Is(err, errTokenExpired):
		return refuse(http.StatusUnauthorized, codeTokenExpired, "bootstrap token %s has expired", t.BootstrapID)
	case err != nil:
		return notReady(err)
	}
	return nil
}

func (s *Server) readyz(r *http.Request) ([]byte, *failure) {
	if _, fail := s.authenticate(r); fail != nil {
		return nil, fail
	}
	if err := s.cfg.Ready(r.Context()); err != nil {
		return nil, notReady(err)
	}
	return []byte(`{"ready":true}`), nil
}

func (s *Server) settings(r *http.Request) ([]byte, *failure) {
	if _, fail := s.authenticate(r); fail != nil {
		return nil, fail
	}
	if err := s.cfg.Ready(r.Context()); err != nil {
		return nil, notReady(err)
	}
	body, err := s.cfg.Settings()
	if err != nil {
		return nil, notReady(err)
	}
	return body, nil
}

// post reads the request for a certificate before it takes a slot, so that slow senders hold up nobody.
func (s *Server) post(w http.ResponseWriter, r *http.Request) ([]byte, *failure) {
	var request certificateRequest
	if fail := readBody(w, r, &request); fail != nil {
		return nil, fail
	}
	return s.limited(s.writes, r, func(r *http.Request) ([]byte, *failure) { return s.certify(r, request) })
}

func readBody(w http.ResponseWriter, r *http.Request, into any) *failure {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime)) // not every transport has one; the size is bounded anyway
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	_ = control.SetReadDeadline(time.Time{})
	if err != nil {
		return refuse(http.StatusBadRequest, codeRequest, "request of at most %d bytes within %s: %v", maxRequest, bodyTime, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return refuse(http.StatusBadRequest, codeRequest, "request is not understood: %v", err)
	}
	return nil
}

// certify signs for a node: one that shows a token or its own certificate, and that proved in the TLS handshake that it holds
// the key its name belongs to.
func (s *Server) certify(r *http.Request, request certificateRequest) ([]byte, *failure) {
	who, fail := s.authenticate(r)
	if fail != nil {
		return nil, fail
	}
	if who.node != "" && who.node != request.Node {
		return nil, refuse(http.StatusForbidden, codeForeign, "node %s may not ask for certificates of node %s", who.node, request.Node)
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, refuse(http.StatusBadRequest, codeRequest, "the connection does not prove a node key")
	}
	key := r.TLS.PeerCertificates[0].PublicKey
	signer, fail := s.signer(request, key)
	if fail != nil {
		return nil, fail
	}
	if fail := s.admit(r.Context(), request.Node, key, who.token); fail != nil {
		return nil, fail
	}
	chain, err := signer.Sign(r.Context(), []byte(request.CSR), request.Kind)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, codeRequest, "%v", err)
	}
	return chain, nil
}

// signer checks the request as far as that is possible without the cluster.
func (s *Server) signer(request certificateRequest, key crypto.PublicKey) (certs.Signer, *failure) {
	if request.Node == s.cfg.LocalNode {
		return nil, refuse(http.StatusForbidden, codeNameTaken, "node name %s belongs to the server", request.Node)
	}
	if len(request.IPs) == 0 || len(request.IPs) > 8 {
		return nil, refuse(http.StatusBadRequest, codeRequest, "a node has 1 to 8 addresses, not %d", len(request.IPs))
	}
	signer, err := s.cfg.Signer(certs.NodeIdentity{Name: request.Node, IPs: request.IPs})
	if err != nil {
		return nil, refuse(http.StatusBadRequest, codeRequest, "%v", err)
	}
	if request.Kind == certs.KindClientKubelet && !requestedBy(request.CSR, key) {
		return nil, refuse(http.StatusBadRequest, codeRequest, "%s is issued for the key of the connection only", request.Kind)
	}
	return signer, nil
}

// requestedBy reports whether a signing request is for the key.
func requestedBy(csrPEM string, key crypto.PublicKey) bool {
	block, _ := pem.Decode([]byte(csrPEM))
	if block == nil {
		return false
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return false
	}
	public, ok := csr.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key)
}

func (s *Server) admit(ctx context.Context, node string, key crypto.PublicKey, approved bool) *failure {
	print, err := fingerprint(key)
	if err != nil {
		return refuse(http.StatusBadRequest, codeRequest, "%v", err)
	}
	switch err := s.identities.bind(ctx, node, print, approved); {
	case errors.Is(err, ErrNameTaken):
		s.cfg.Log.Warn("a machine asked for the name of another node", "node", node)
		return refuse(http.StatusForbidden, codeNameTaken, "node name %s belongs to another machine", node)
	case errors.Is(err, errUnbound):
		return refuse(http.StatusUnauthorized, codeTokenNeeded, "node %s is to be adopted anew, which needs a token", node)
	case err != nil:
		return notReady(err)
	}
	return nil
}
