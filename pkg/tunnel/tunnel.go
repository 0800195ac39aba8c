// Package tunnel carries the API server's connections to nodes that no server can reach. A node dials out to the shared port
// with its own certificate and keeps the connection; the server opens streams over it, and a stream leads to a named target of
// the node, which is its kubelet, and to nothing else.
// It is a feature: server wires the server's end, agent the node's end.
package tunnel

import (
	"strings"
	"time"
)

// Path is where the server's end is served on the shared port.
const Path = "/v1-kedge/connect"

// TargetKubelet is the name of the one target that every node has.
const TargetKubelet = "kubelet"

// DefaultPing is how often an idle node says that it is there. One exchange costs about 210 bytes on the wire; routers that
// translate addresses forget an idle connection after one or more minutes.
const DefaultPing = 40 * time.Second

// Limits of one session. They are wide for use and narrow for abuse.
const (
	maxStreams   = 256              // streams at once
	chunk        = 16 << 10         // bytes in one message
	writeTimeout = 30 * time.Second // one write, with a link that takes nothing
	handshake    = 20 * time.Second // opening a session
	dialTimeout  = 5 * time.Second  // its TCP connection: a new attempt is quicker than waiting for a lost packet's turn
	answerTime   = 20 * time.Second // how long a ping may go unanswered, unless configured
	dialTime     = 15 * time.Second // how long the node's dial may take, when the caller has no deadline
	// farRetry is the longest pause before another attempt at a server that we can do without.
	farRetry = 5 * time.Minute
	// streamIdle closes a stream on which nothing moved: longer than the kubelet keeps an idle exec.
	streamIdle = 5 * time.Hour
)

// What a ping says about the node that sends it. The content also tells our pings from those of the multiplexer, which the
// guard leaves out.
const (
	pingWell byte = 1
	pingIll  byte = 2
)

// Headers of the request that opens a session.
const (
	headerPing      = "X-Kedge-Ping"      // seconds between pings
	headerVia       = "X-Kedge-Via"       // the address by which the node found this server
	headerConnected = "X-Kedge-Connected" // addresses by which the node has sessions already, with commas
	headerServer    = "X-Kedge-Server"    // in the answer: the address by which the cluster knows this server
	maxVia          = 300                 // bytes of one of them
)

// accepted is the byte that a node sends first on a stream when its own dial has succeeded: without it the server would learn
// of a failure only at the first read, and blame the wrong part.
const accepted = 0x06

// deadAfter is how long the node may hear nothing before it gives the session up: one ping unanswered.
func deadAfter(ping, answer time.Duration) time.Duration { return ping + answer }

// lostAfter is the same for the server: two pings missing.
func lostAfter(ping, answer time.Duration) time.Duration { return 2*ping + answer }

// redundant decides whether a new connection of a node leads to a server that the node is connected to already by another
// address: held is the address of the present session, connected are those the node believes to be alive.
func redundant(held, via, connected string) bool {
	if held == "" || held == via {
		return false
	}
	for c := range strings.SplitSeq(connected, ",") {
		if c == held {
			return true
		}
	}
	return false
}
