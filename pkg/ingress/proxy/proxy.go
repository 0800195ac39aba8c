// Package proxy carries HTTP requests to backends as a table of routes says. The work is done by net/http and its reverse proxy; this
// package only chooses, changes and bounds. Only ingress imports it.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/kedge-io/kedge/pkg/ingress/route"
)

const (
	// maxConns bounds the connections of clients to one port, maxHeader the bytes of a request's headers.
	maxConns  = 4096
	maxHeader = 64 << 10
	// headerTime is for a client to send its headers, idleTime how long a quiet connection is kept.
	headerTime = 30 * time.Second
	idleTime   = 2 * time.Minute
	// dialTime is for a backend to accept a connection.
	dialTime = 5 * time.Second
	// attempts is how many addresses of a backend are tried for a request without a body.
	attempts = 3
	// stopTime is how long requests may go on after the port is closed.
	stopTime = 5 * time.Second
)

// Transports reach backends; all ports share them.
type Transports struct {
	plain, h2c *http.Transport
}

// NewTransports makes them; they connect to nothing by themselves.
func NewTransports() *Transports {
	base := func() *http.Transport {
		return &http.Transport{
			DialContext: (&net.Dialer{Timeout: dialTime, KeepAlive: 30 * time.Second}).DialContext, DisableCompression: true,
			MaxIdleConns: 256, MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute, ExpectContinueTimeout: time.Second,
		}
	}
	t := &Transports{plain: base(), h2c: base()}
	t.h2c.Protocols = new(http.Protocols)
	t.h2c.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// Close closes idle connections.
func (t *Transports) Close() {
	t.plain.CloseIdleConnections()
	t.h2c.CloseIdleConnections()
}

// Server serves one port.
type Server struct {
	number     int
	secure     bool
	table      atomic.Pointer[route.Port]
	fallback   *tls.Certificate
	transports *Transports
	http       *http.Server
}

// NewServer prepares a port. fallback is shown to clients that ask for a name without a certificate.
func NewServer(number int, table *route.Port, fallback *tls.Certificate, transports *Transports, lg *slog.Logger) *Server {
	s := &Server{number: number, secure: table.TLS, fallback: fallback, transports: transports}
	s.table.Store(table)
	s.http = &http.Server{
		Handler: s, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(debugWriter{lg}, "", 0), // what clients do wrong is no news
	}
	if s.secure {
		s.http.TLSConfig = &tls.Config{GetCertificate: s.certificate, MinVersion: tls.VersionTLS12}
	}
	return s
}

// Secure says whether the port speaks TLS.
func (s *Server) Secure() bool { return s.secure }

// Update replaces the table; requests that are on their way keep the old one.
func (s *Server) Update(table *route.Port) { s.table.Store(table) }

// Serve works until Close. It returns why it ended otherwise.
func (s *Server) Serve(l net.Listener) error {
	l = netutil.LimitListener(l, maxConns)
	var err error
	if s.secure {
		err = s.http.ServeTLS(l, "", "")
	} else {
		err = s.http.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close stops listening and gives requests a moment to end.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := s.table.Load().Cert(hello.ServerName); c != nil {
		return c, nil
	}
	return s.fallback, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rule := s.table.Load().Match(r)
	switch {
	case rule == nil:
		http.Error(w, "404 no route for this host and path", http.StatusNotFound)
	case rule.Redirect != nil:
		change(w.Header(), rule.Response)
		w.Header().Set("Location", s.location(r, rule))
		w.WriteHeader(rule.Redirect.Code)
	case rule.Status != 0:
		http.Error(w, strconv.Itoa(rule.Status)+" the route leads to no service", rule.Status)
	default:
		s.forward(w, r, rule)
	}
}

func (s *Server) forward(w http.ResponseWriter, r *http.Request, rule *route.Rule) {
	backend, address := rule.Pick()
	if backend == nil || backend.Broken {
		http.Error(w, "500 the route has no backend", http.StatusInternalServerError)
		return
	}
	if address == "" {
		http.Error(w, "503 no endpoint is ready", http.StatusServiceUnavailable)
		return
	}
	if rule.Timeout > 0 {
		ctx, cancel := context.WithTimeout(r.Context(), rule.Timeout)
		defer cancel()
		r = r.WithContext(ctx)
	}
	transport := s.transports.plain
	if backend.H2C {
		transport = s.transports.h2c
	}
	proxy := httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { s.rewrite(p, rule, backend, address) },
		Transport: retrier{transport, backend}, FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			change(resp.Header, rule.Response)
			change(resp.Header, backend.Response)
			return nil
		},
		ErrorHandler: failed, ErrorLog: s.http.ErrorLog,
	}
	proxy.ServeHTTP(w, r)
}

// failed answers for a backend that did not.
func failed(w http.ResponseWriter, _ *http.Request, err error) {
	var tooLong interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.Canceled): // the client has gone
	case errors.As(err, &tooLong) && tooLong.Timeout():
		http.Error(w, "504 the service does not answer in time", http.StatusGatewayTimeout)
	default:
		http.Error(w, "502 the service cannot be reached", http.StatusBadGateway)
	}
}

// rewrite makes the backend's request. What a client says about whom it forwards for is not believed.
func (s *Server) rewrite(p *httputil.ProxyRequest, rule *route.Rule, backend *route.Backend, address string) {
	p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", address, p.In.Host
	p.SetXForwarded()
	p.Out.Header.Set("X-Forwarded-Port", strconv.Itoa(s.number))
	if host, _, err := net.SplitHostPort(p.In.RemoteAddr); err == nil {
		p.Out.Header.Set("X-Real-Ip", host)
	}
	if rw := rule.Rewrite; rw != nil {
		if rw.Host != "" {
			p.Out.Host = rw.Host
		}
		if rw.Path != nil {
			p.Out.URL.Path, p.Out.URL.RawPath = rw.Path.Apply(p.In.URL.Path, rule.Path), ""
		}
	}
	change(p.Out.Header, rule.Request)
	change(p.Out.Header, backend.Request)
	if h := p.Out.Header.Get("Host"); h != "" {
		p.Out.Host = h
	}
}

func change(h http.Header, changes []route.Header) {
	for _, c := range changes {
		switch {
		case c.Remove:
			h.Del(c.Name)
		case c.Add:
			h.Add(c.Name, c.Value)
		default:
			h.Set(c.Name, c.Value)
		}
	}
}

// location is where a redirect leads.
func (s *Server) location(r *http.Request, rule *route.Rule) string {
	to := rule.Redirect
	out := url.URL{Scheme: to.Scheme, Host: to.Host, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	port := to.Port
	if out.Scheme == "" {
		out.Scheme = "http"
		if s.secure {
			out.Scheme = "https"
		}
		if port == 0 {
			port = s.number
		}
	}
	if out.Host == "" {
		out.Host = route.Host(r.Host)
	}
	if port != 0 && (out.Scheme != "http" || port != 80) && (out.Scheme != "https" || port != 443) {
		out.Host += ":" + strconv.Itoa(port)
	}
	if to.Path != nil {
		out.Path = to.Path.Apply(r.URL.Path, rule.Path)
	}
	return out.String()
}

// retrier tries another address when one does not take the connection and nothing was sent yet.
type retrier struct {
	next    *http.Transport
	backend *route.Backend
}

// RoundTrip implements http.RoundTripper.
func (t retrier) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if r.Body != nil && r.Body != http.NoBody {
		return resp, err
	}
	at := 0
	for i, a := range t.backend.Addresses {
		if a == r.URL.Host {
			at = i
		}
	}
	for n := 1; n < min(attempts, len(t.backend.Addresses)) && notTaken(err) && r.Context().Err() == nil; n++ {
		again := r.Clone(r.Context())
		again.URL.Host = t.backend.Addresses[(at+n)%len(t.backend.Addresses)]
		resp, err = t.next.RoundTrip(again)
	}
	return resp, err
}

func notTaken(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// debugWriter sends the lines of a standard logger to debug.
type debugWriter struct{ log *slog.Logger }

// Write implements io.Writer.
func (d debugWriter) Write(p []byte) (int, error) {
	d.log.Debug("ingress connection", "said", strings.TrimSpace(string(p)))
	return len(p), nil
}
