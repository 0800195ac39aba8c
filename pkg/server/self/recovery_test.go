package self

import (
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/datastore"
)

func TestRecoveryEventSaysWhatIsLost(t *testing.T) {
	r := datastore.Recovery{Time: time.Now(), Reason: "page 7 is torn"}
	if got := recoveryEvent("s1", r).Message; !strings.Contains(got, "page 7 is torn") || !strings.Contains(got, "without loss") {
		t.Errorf("a repair: %s", got)
	}
	r.Kept = "/data/db/damaged-1"
	r.Snapshot.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := recoveryEvent("s1", r).Message
	for _, want := range []string{"page 7 is torn", "2026-01-02T03:04:05Z", "is lost", "/data/db/damaged-1"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in: %s", want, got)
		}
	}
}
