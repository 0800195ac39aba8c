package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Problem is why a node cannot join, said in one line to its operator.
type Problem struct {
	Line string
	// Permanent says that waiting does not help: somebody must do something.
	Permanent bool
	// Err is what happened; it may be nil.
	Err error

	retryAfter time.Duration
}

// Error implements error.
func (p *Problem) Error() string { return p.Line }

// Unwrap returns what happened.
func (p *Problem) Unwrap() error { return p.Err }

var (
	errWrongCA  = errors.New("authority does not match the token")
	errNotKedge = errors.New("answer is not that of a kedge server")
)

// answer is a server's refusal.
type answer struct {
	status     int
	refusal    refusal
	retryAfter time.Duration
}

func (a *answer) Error() string {
	if a.refusal.Message != "" {
		return a.refusal.Message
	}
	return fmt.Sprintf("answer %d %s", a.status, http.StatusText(a.status))
}

// facts is what is known around an error.
type facts struct {
	server     string
	now        time.Time // of this machine
	serverTime time.Time // zero if unknown; nobody vouches for it
	node       string
	token      Token
	shownCA    string // hash of the authority that the server showed
	pinned     bool   // the authority was known before
	asServer   bool   // this machine is to be a server
	ended      time.Time
}

// explain says in one line what is wrong and what to do.
func explain(err error, f facts) *Problem {
	var said *answer
	if errors.As(err, &said) {
		return explainAnswer(said, f)
	}
	p := &Problem{Err: err}
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var network net.Error
	switch {
	case errors.Is(err, errWrongCA):
		p.Permanent = true
		p.Line = fmt.Sprintf("the server at %s is not the one of the token: its authority has the hash %s, the token names %s: "+
			"take the token from this server, or find out who answers in its place", f.server, f.shownCA, f.token.CAHash)
	case errors.Is(err, errNotKedge), errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		p.Line = fmt.Sprintf("what answers at %s is not a kedge server: a proxy or another service is in between, or the port is wrong", f.server)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		p.Line = explainTime(invalid.Cert, f)
	case errors.As(err, &unknown), errors.As(err, &name), errors.As(err, &invalid):
		p.Line = fmt.Sprintf("%s shows a certificate that the cluster's authority did not issue: a proxy that opens TLS is in between, "+
			"or a server of another cluster answers there", f.server)
	case errors.As(err, &dns):
		p.Line = fmt.Sprintf("the name of the server at %s is not known: %s: check --server and this machine's DNS", f.server, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		p.Line = fmt.Sprintf("nothing listens at %s: start kedge on the server, or correct --server", f.server)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		p.Line = fmt.Sprintf("there is no way to %s: check this machine's network and --server", f.server)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		p.Line = fmt.Sprintf("%s does not answer: a firewall is in between, the server is off, or --server is wrong", f.server)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		p.Line = fmt.Sprintf("%s closes the connection: the server is starting, or something in between does not let TLS pass", f.server)
	default:
		p.Line = fmt.Sprintf("asking %s failed: %v", f.server, err)
	}
	return p
}

// explainTime blames the clock that is wrong. Go reports certificates from the future as expired.
func explainTime(cert *x509.Certificate, f facts) string {
	const day = 24 * time.Hour
	here := f.now.UTC().Format(time.DateTime)
	skewed := !f.serverTime.IsZero() && f.now.Sub(f.serverTime).Abs() > day
	switch {
	case skewed:
		return fmt.Sprintf("the clock of this machine says %s, the server's at %s says %s: set the clock that is wrong",
			here, f.server, f.serverTime.UTC().Format(time.DateTime))
	case f.now.Before(cert.NotBefore):
		return fmt.Sprintf("the certificate of %s begins at %s, and the clock of this machine says %s: set the clock that is wrong",
			f.server, cert.NotBefore.UTC().Format(time.DateTime), here)
	}
	return fmt.Sprintf("the certificate of %s ended at %s, and the clock of this machine says %s: set this clock if it is wrong, else restart kedge on the server",
		f.server, cert.NotAfter.UTC().Format(time.DateTime), here)
}

// explainAnswer is explain for what a server, or something in its place, answered.
func explainAnswer(a *answer, f facts) *Problem {
	p := &Problem{Err: a, Permanent: true, retryAfter: a.retryAfter}
	newToken := "sudo cat /var/lib/kedge/server/agent-token"
	if f.asServer {
		newToken = "sudo cat /var/lib/kedge/server/token"
	}
	switch a.refusal.Code {
	case codeTokenWrong:
		p.Line = fmt.Sprintf("%s refuses the token: compare it with that of the server (%s)", f.server, newToken)
	case codeTokenUnknown:
		p.Line = fmt.Sprintf("%s does not know bootstrap token %s: it has expired or was deleted; make another with kedge token create on the server",
			f.server, f.token.BootstrapID)
	case codeTokenExpired:
		p.Line = fmt.Sprintf("bootstrap token %s has expired: make another with kedge token create on the server", f.token.BootstrapID)
	case codeTokenNeeded:
		p.Line = fmt.Sprintf("%s wants a token: set --token to that of the server (%s)", f.server, newToken)
		if !f.ended.IsZero() && f.now.After(f.ended) {
			p.Line = fmt.Sprintf("the certificate of this node ended on %s and %s wants a token to renew it: set --token to that of the server (%s)",
				f.ended.UTC().Format(time.DateOnly), f.server, newToken)
		}
	case codeNameTaken:
		p.Line = fmt.Sprintf("node name %s belongs to another machine: if this machine takes its place, run kedge node readopt %s on the server; "+
			"else give this one another --node-name", f.node, f.node)
	case codeServerToken:
		p.Line = fmt.Sprintf("%s lets servers join with the server token only, and this is another: set --token to that of the server (sudo cat /var/lib/kedge/server/token)", f.server)
	case codeAlone:
		p.Line = fmt.Sprintf("the server at %s keeps its data in SQLite, which is for one server: restart it with --cluster-init, and start this one again", f.server)
	case codeBusy, codeNotReady:
		p.Permanent = false
		p.Line = fmt.Sprintf("the server at %s is not ready yet: %s", f.server, a.refusal.Message)
	case codeForeign, codeRequest:
		p.Line = fmt.Sprintf("%s refuses: %s", f.server, a.refusal.Message)
	default:
		p.Permanent = false
		p.Line = fmt.Sprintf("what answers at %s is not a kedge server (%d %s): a proxy or another service is in between, or the port is wrong",
			f.server, a.status, http.StatusText(a.status))
		if a.status == http.StatusServiceUnavailable || a.status == http.StatusInternalServerError {
			p.Line = fmt.Sprintf("the server at %s is not ready yet (%d %s)", f.server, a.status, http.StatusText(a.status))
		}
	}
	return p
}
