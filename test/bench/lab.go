package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"

	"github.com/kedge-io/kedge/test/lab"
)

type bench struct {
	ctx    context.Context
	opt    options
	report *report
	tb     *tb
}

// tb lets the lab, which is made for tests, run in a program: it keeps what the lab wants cleaned up and turns a fatal
// failure into the end of the step.
type tb struct {
	testing.TB
	ctx      context.Context
	cleanups []func()
	failure  string
}

func (t *tb) Helper()                         {}
func (t *tb) Name() string                    { return "bench" }
func (t *tb) Context() context.Context        { return t.ctx }
func (t *tb) Failed() bool                    { return t.failure != "" }
func (t *tb) Cleanup(f func())                { t.cleanups = append(t.cleanups, f) }
func (t *tb) Log(args ...any)                 { fmt.Println(args...) }
func (t *tb) Logf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (t *tb) Error(args ...any)               { t.failure = fmt.Sprint(args...) }
func (t *tb) Errorf(f string, args ...any)    { t.failure = fmt.Sprintf(f, args...) }
func (t *tb) Fatal(args ...any)               { t.Error(args...); runtime.Goexit() }
func (t *tb) Fatalf(f string, args ...any)    { t.Errorf(f, args...); runtime.Goexit() }
func (t *tb) Skip(args ...any)                { t.Fatal(args...) }
func (t *tb) Skipf(f string, args ...any)     { t.Fatalf(f, args...) }

// measure runs one step with a lab of its own and cleans up after it.
func (b *bench) measure(s step) error {
	t := &tb{ctx: b.ctx}
	b.tb = t
	done := make(chan error, 1)
	go func() {
		var err error
		ended := false
		defer func() {
			for i := len(t.cleanups) - 1; i >= 0; i-- {
				t.cleanups[i]()
			}
			if !ended || t.failure != "" {
				err = fmt.Errorf("%s", t.failure)
			}
			done <- err
		}()
		err = s.run(b)
		ended = true
	}()
	return <-done
}

// machine makes a machine with the test image in kedge's image folder; kedge is not started.
func (b *bench) machine(name string, args ...string) *lab.Node {
	n := lab.New(b.tb).AddSite("bench").AddNode(name, lab.Server(args...))
	n.AddBusybox()
	return n
}

// pair is a server that is ready, and a machine in a site behind address translation that is to join it.
func (b *bench) pair() (farm *lab.Site, server, node *lab.Node) {
	l := lab.New(b.tb)
	server = l.AddSite("bench").AddNode("server", lab.Server())
	farm = l.AddSiteBehindNAT("farm")
	server.Start()
	server.AwaitReady()
	return farm, server, farm.AddAgent("node", server)
}

// site is a machine whose site is ready, with a client.
func (b *bench) site(name string, args ...string) (*lab.Node, *kubernetes.Clientset, error) {
	n := b.machine(name, args...)
	n.Start()
	n.AwaitReady()
	client, err := n.Client()
	return n, client, err
}

func fdatasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
