// Package join lets machines become nodes: tokens, the identity of a node, the join API on the server's shared port, and the
// client that a node asks it with.
//
// A node is known by its key. It makes the key itself, proves in every TLS handshake that it holds it, and gets certificates
// for signing requests only; the server remembers which key a node name belongs to. The client sends its token to nobody
// before the certificate authority matches the token.
// It is a feature: server wires the server's half, agent the client, cli the token commands.
package join

import (
	"net"

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
	codeBusy         code = "busy"
	codeNotReady     code = "not-ready"
)
