package autonomy

import (
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/autonomy/link"
)

func TestTell(t *testing.T) {
	for want, s := range map[string]standing{
		"": {state: link.Up, since: time.Hour, held: 1, met: true, lost: "there was no store"},
		"the server cannot be reached for 1m30s: this node works on its own":                                {state: link.Down, since: 90 * time.Second, met: true},
		"the server cannot be reached for 2s: this node works on its own, 3 writes wait":                    {state: link.Down, since: 2 * time.Second, held: 3},
		"when kedge started, 7 bytes of the store were damaged: what is missing comes back with the server": {lost: "7 bytes of the store were damaged"},
		"the store cannot be written, changes are in memory only: no space left on device":                  {state: link.Up, trouble: "no space left on device"},
		"the server cannot be reached for 0s: this node works on its own; when kedge started, there was no store: what is missing comes back with the server": {
			state: link.Down, lost: "there was no store"},
	} {
		if got := s.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
