package ginkgo

import (
	"strings"
	"testing"
)

const report = `[{"SpecReports":[
 {"LeafNodeType":"BeforeSuite","State":"passed"},
 {"ContainerHierarchyTexts":["Image","pull"],"LeafNodeType":"It","LeafNodeText":"works","State":"passed"},
 {"ContainerHierarchyTexts":["AppArmor"],"LeafNodeType":"It","LeafNodeText":"blocks","State":"skipped","Failure":{"Message":"it is off"}},
 {"ContainerHierarchyTexts":["OOM"],"LeafNodeType":"It","LeafNodeText":"kills","State":"timedout","Failure":{"Message":"too long"}},
 {"ContainerHierarchyTexts":["benchmark"],"LeafNodeType":"It","LeafNodeText":"many","State":"skipped"},
 {"LeafNodeType":"AfterSuite","State":"panicked","Failure":{"Message":"nil"}}
]}]`

func TestReportIsReadAndCompared(t *testing.T) {
	specs, err := ReadReport([]byte(report))
	if err != nil {
		t.Fatal(err)
	}
	if got := Count(specs); got != "1 passed, 2 failed, 1 skipped of 4" {
		t.Error(got)
	}
	for _, tc := range []struct {
		name, expected string
		wrong          []string
	}{
		{"as it is", "skipped | AppArmor blocks | off\nfailed | OOM kills | slow\nfailed | AfterSuite | nil", nil},
		{"nothing expected", "# nothing", []string{"AfterSuite: panicked: nil", "AppArmor blocks: skipped: it is off", "OOM kills: timedout: too long"}},
		{"wrong kinds", "failed | AppArmor blocks | x\nskipped | OOM kills | x\nfailed | AfterSuite | nil",
			[]string{"AppArmor blocks: skipped: it is off", "OOM kills: timedout: too long"}},
		{"mended", "failed | Image pull works | x\nskipped | AppArmor blocks | off\nfailed | OOM kills | slow\nfailed | AfterSuite | nil",
			[]string{"Image pull works: passes now: remove its line"}},
		{"skip that passes, and one that is gone", "skipped | Image pull works | x\nskipped | gone | x\nskipped | AppArmor blocks | off\nfailed | OOM kills | slow\nfailed | AfterSuite | nil",
			[]string{"gone: is expected and was not there"}},
	} {
		list, err := ReadExpected(tc.expected)
		if err != nil {
			t.Fatal(err)
		}
		if got := Compare(specs, list); strings.Join(got, "\n") != strings.Join(tc.wrong, "\n") {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.wrong)
		}
	}
	if _, err := ReadReport([]byte("{")); err == nil {
		t.Error("half a report was read")
	}
}

func TestExpectedIsRead(t *testing.T) {
	for _, bad := range []string{"failed | x", "failed | x | ", "broken | x | y", "passed | x | y"} {
		if _, err := ReadExpected(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
