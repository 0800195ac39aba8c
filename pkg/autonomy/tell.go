package autonomy

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/autonomy/link"
)

// standing is what there is to say about a node API.
type standing struct {
	state link.State
	since time.Duration
	held  int
	// met says that the server was reached since the start: what the disk had lost was read again.
	met           bool
	lost, trouble string
}

// Tell implements supervisor.Teller: how the node stands with its server, and what its memory of it is worth.
func (n *NodeAPI) Tell() string {
	state, since, _ := n.link.State()
	return standing{
		state: state, since: time.Since(since), held: n.proxy.Held(), met: n.met.Load(), lost: n.cache.Lost(), trouble: n.cache.Trouble(),
	}.String()
}

// meet notes when the server is reached for the first time.
func (n *NodeAPI) meet(ctx context.Context) {
	for {
		state, _, changed := n.link.State()
		if state == link.Up {
			n.met.Store(true)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// String is empty for a node that is linked and in order.
func (s standing) String() string {
	var parts []string
	if s.state == link.Down {
		text := fmt.Sprintf("the server cannot be reached for %s: this node works on its own", s.since.Round(time.Second))
		if s.held > 0 {
			text += fmt.Sprintf(", %d writes wait", s.held)
		}
		parts = append(parts, text)
	}
	if s.lost != "" && !s.met {
		parts = append(parts, "when kedge started, "+s.lost+": what is missing comes back with the server")
	}
	if s.trouble != "" {
		parts = append(parts, "the store cannot be written, changes are in memory only: "+s.trouble)
	}
	return strings.Join(parts, "; ")
}
