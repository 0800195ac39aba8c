package golden

import (
	"testing"
)

// recorder keeps what Check says instead of failing.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestCheckFailsOnADifference(t *testing.T) {
	for got, want := range map[string]bool{"read by a person\n": false, "something else\n": true} {
		r := &recorder{TB: t}
		Check(r, "text.txt", got)
		if r.failed != want {
			t.Errorf("%q: failed %v", got, r.failed)
		}
	}
}
