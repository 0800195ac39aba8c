package agent

import "testing"

func TestSystemImage(t *testing.T) {
	for _, tc := range []struct{ registry, image, want string }{
		{"", "pause:3", "pause:3"},
		{"mirror:5000", "pause:3", "mirror:5000/pause:3"},
		{"mirror:5000", "team/pause:3", "mirror:5000/team/pause:3"},
		{"mirror:5000", "docker.io/team/pause:3", "docker.io/team/pause:3"},
		{"mirror:5000", "localhost/pause:3", "localhost/pause:3"},
		{"mirror:5000", "own:5000/pause:3", "own:5000/pause:3"},
	} {
		if got := systemImage(tc.registry, tc.image); got != tc.want {
			t.Errorf("%s at %q: %s", tc.image, tc.registry, got)
		}
	}
}
