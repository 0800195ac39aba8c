package logs

import (
	"bytes"
	stdlog "log"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

func TestSetupIsQuietAboutHealth(t *testing.T) {
	var out bytes.Buffer
	log, err := Setup(Config{Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("ours")
	log.Debug("our detail")
	stdlog.Print("somebody's chatter")
	klog.Info("info")
	klog.InfoS("structured info")
	klog.Warning("worth knowing")
	klog.ErrorS(nil, "broken")
	klog.ErrorS(nil, "The manifest file is empty, ignoring.")
	for text, want := range map[string]bool{
		"msg=ours": true, "our detail": false, "chatter": false, "info": false, "worth knowing": true, "broken": true, "manifest file": false,
	} {
		if got := strings.Contains(out.String(), text); got != want {
			t.Errorf("%q is there: %v; the log:\n%s", text, got, out.String())
		}
	}
}

func TestSetupShowsAllWithDebug(t *testing.T) {
	var out bytes.Buffer
	log, err := Setup(Config{Output: &out, Debug: true})
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("our detail")
	stdlog.Print("chatter")
	klog.Info("their info")
	klog.ErrorS(nil, "The manifest file is empty, ignoring.")
	for _, want := range []string{"our detail", "chatter", "their info", "manifest file"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing; the log:\n%s", want, out.String())
		}
	}
}

func TestSetupNamesBadVModule(t *testing.T) {
	if _, err := Setup(Config{Output: &bytes.Buffer{}, VModule: "nonsense"}); err == nil || !strings.Contains(err.Error(), "vmodule") {
		t.Errorf("got %v", err)
	}
}
