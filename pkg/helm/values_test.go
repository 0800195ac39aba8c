package helm

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

func TestLaterValuesWin(t *testing.T) {
	got, err := mergeValues([]layer{
		{"chart", "a: {b: 1, c: [1, 2]}\nd: first"}, {"config", "a: {b: 2}\nd: null"}, {"secret", "e: s"},
	}, map[string]intstr.IntOrString{
		"n": intstr.FromInt32(3), "f.g": intstr.FromString("true"), "h": intstr.FromString("1,2"), "i[0]": intstr.FromString("007"),
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(got)
	want := "a:\n  b: 2\n  c:\n  - 1\n  - 2\nd: null\ne: s\nf:\n  g: true\nh: 1,2\ni:\n- \"007\"\n\"n\": 3\n"
	if err != nil || string(text) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, text, want)
	}
	if _, err := mergeValues([]layer{{"HelmChart valuesContent", "- a"}}, nil); err == nil || !strings.HasPrefix(err.Error(), "HelmChart valuesContent") {
		t.Errorf("a list as values: %v", err)
	}
}
