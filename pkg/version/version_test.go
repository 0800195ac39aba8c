package version

import "testing"

func TestParseRelease(t *testing.T) {
	for s, want := range map[string]Release{
		"v1.2.3": {1, 2, 3}, "0.10.0": {0, 10, 0}, "v1.36.4-rc.1+kedge1": {1, 36, 4}, "v2.0.0+x-y": {2, 0, 0},
	} {
		if got, err := ParseRelease(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "dev", "v1.2", "v1.x.3", "1.2.3.4", "v1.-2.3"} {
		if _, err := ParseRelease(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestNewerMinor(t *testing.T) {
	base := Release{1, 4, 9}
	for r, want := range map[Release]bool{
		{1, 5, 0}: true, {2, 0, 0}: true, {1, 4, 10}: false, {1, 4, 9}: false, {1, 3, 99}: false, {0, 9, 0}: false,
	} {
		if got := r.NewerMinor(base); got != want {
			t.Errorf("%v: %t", r, got)
		}
	}
}

func TestGetHasWhatIsKnownWithoutStamps(t *testing.T) {
	if i := Get(); i.Version == "" || i.Go == "" || i.Platform == "" {
		t.Errorf("%+v", i)
	}
}
