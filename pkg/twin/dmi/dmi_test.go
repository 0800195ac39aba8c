package dmi

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	family "github.com/kubeedge/api/apis/dmi/v1beta1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/hub"
)

const patience = 30 * time.Second

// foreign is a driver that is made of the family's own stubs.
type foreign struct {
	family.UnimplementedDeviceMapperServiceServer

	t       *testing.T
	name    string
	address string
	manager family.DeviceManagerServiceClient
	server  *grpc.Server
	mu      sync.Mutex
	calls   []string
}

func (f *foreign) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func desiredOf(d *family.Device) string {
	return d.GetSpec().GetProperties()[0].GetDesired().GetValue()
}

func (f *foreign) RegisterDevice(_ context.Context, r *family.RegisterDeviceRequest) (*family.RegisterDeviceResponse, error) {
	f.note("register %s %s", r.GetDevice().GetName(), desiredOf(r.GetDevice()))
	return &family.RegisterDeviceResponse{}, nil
}

func (f *foreign) UpdateDevice(_ context.Context, r *family.UpdateDeviceRequest) (*family.UpdateDeviceResponse, error) {
	f.note("update %s %s", r.GetDevice().GetName(), desiredOf(r.GetDevice()))
	return &family.UpdateDeviceResponse{}, nil
}

func (f *foreign) RemoveDevice(_ context.Context, r *family.RemoveDeviceRequest) (*family.RemoveDeviceResponse, error) {
	f.note("remove %s", r.GetDeviceName())
	return &family.RemoveDeviceResponse{}, nil
}

func (f *foreign) CreateDeviceModel(_ context.Context, r *family.CreateDeviceModelRequest) (*family.CreateDeviceModelResponse, error) {
	f.note("model %s", r.GetModel().GetName())
	return &family.CreateDeviceModelResponse{}, nil
}

func (f *foreign) RemoveDeviceModel(_ context.Context, r *family.RemoveDeviceModelRequest) (*family.RemoveDeviceModelResponse, error) {
	f.note("remove model %s", r.GetModelName())
	return &family.RemoveDeviceModelResponse{}, nil
}

// await waits for exactly these calls, and forgets them.
func (f *foreign) await(want ...string) {
	f.t.Helper()
	var got string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		got = strings.Join(f.calls, ", ")
		if got == strings.Join(want, ", ") {
			f.calls = nil
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
	}
	f.t.Fatalf("%s was told %s, want %s", f.name, got, strings.Join(want, ", "))
}

func (f *foreign) start() {
	l, err := net.Listen("unix", f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.server = grpc.NewServer()
	family.RegisterDeviceMapperServiceServer(f.server, f)
	go func() { _ = f.server.Serve(l) }()
	f.t.Cleanup(f.server.Stop)
}

func (f *foreign) register(protocol string, withData bool) *family.MapperRegisterResponse {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	r, err := f.manager.MapperRegister(ctx, &family.MapperRegisterRequest{WithData: withData, Mapper: &family.MapperInfo{
		Name: f.name, Protocol: protocol, Address: []byte(f.address), Version: "v1",
	}}, grpc.WaitForReady(true))
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// node is a hub with its server.
type node struct {
	*testing.T
	dir, sockets string
	hub          *hub.Hub
	stop         func()
}

func newNode(t *testing.T) *node {
	n := &node{T: t, dir: t.TempDir(), sockets: t.TempDir()}
	n.start()
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) start() {
	n.Helper()
	log := slog.New(slog.DiscardHandler)
	h, err := hub.New(hub.Config{Dir: n.dir, Node: "n1", Log: log})
	if err != nil {
		n.Fatal(err)
	}
	s, err := New(Config{Hub: h, Sockets: []string{filepath.Join(n.sockets, "dmi.sock")}, Log: log})
	if err != nil {
		n.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	keep, end := context.WithCancel(context.Background())
	served, kept := make(chan error, 1), make(chan error, 1)
	go func() { served <- s.Run(ctx) }()
	go func() { kept <- h.Run(keep) }()
	n.hub = h
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			n.Error(err)
		}
		end()
		if err := <-kept; err != nil {
			n.Error(err)
		}
	})
}

func (n *node) mapper(name string) *foreign {
	n.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(n.sockets, "dmi.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { _ = conn.Close() })
	f := &foreign{t: n.T, name: name, address: filepath.Join(n.sockets, name+".sock"), manager: family.NewDeviceManagerServiceClient(conn)}
	f.start()
	return f
}

func (n *node) model() {
	n.Helper()
	m := &v1beta1.DeviceModel{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m"}, Spec: v1beta1.DeviceModelSpec{
		Properties: []v1beta1.ModelProperty{{Name: "p", Type: "INT", AccessMode: "ReadWrite", Maximum: "100"}},
	}}
	if err := n.hub.PutModel(m); err != nil {
		n.Fatal(err)
	}
}

func (n *node) device(name, desired string, config v1beta1.ConfigData) error {
	return n.hub.PutDevice(&v1beta1.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "u"}, Spec: v1beta1.DeviceSpec{
		DeviceModelRef: &v1beta1.ModelRef{Name: "m"}, NodeName: "n1", Protocol: v1beta1.ProtocolConfig{ProtocolName: "x", ConfigData: config},
		Properties: []v1beta1.Property{{Name: "p", Desired: &v1beta1.Value{Value: desired}, Visitors: &v1beta1.Visitor{ConfigData: v1beta1.ConfigData{
			"whole": int64(1 << 40), "float": 1.5, "list": []any{"a"}, "flag": true,
		}}}},
	}})
}

func (n *node) must(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

func TestForeignDriver(t *testing.T) {
	n := newNode(t)
	f := n.mapper("driver")
	if r := f.register("x", true); len(r.GetDeviceList()) != 0 {
		t.Errorf("devices before there are any: %v", r)
	}
	n.must(n.device("d1", "1", nil)) // the model comes later
	n.model()
	f.await("model m", "register d1 1")
	n.must(n.device("d1", "2", nil))
	f.await("update d1 2")
	if err := n.device("d1", "101", nil); err == nil {
		t.Error("a value above the maximum was taken")
	}
	n.must(n.hub.Report("default/d1", []hub.Reading{{Property: "p", Reported: &v1beta1.Value{Value: "2"}}}))
	n.must(n.hub.ReportState("default/d1", "online"))
	n.must(n.hub.SetDesired("default/d1", "p", v1beta1.Value{Value: "3"}))
	f.await("update d1 3") // and nothing about the report or the refused value

	n.stop()
	n.start()
	n.must(n.hub.SetDesired("default/d1", "p", v1beta1.Value{Value: "4"}))
	f.await("update d1 4") // remembered over a restart of the node, and not told what it knows
	again := n.mapper("second")
	r := again.register("x", true)
	if len(r.GetDeviceList()) != 0 {
		t.Errorf("the second driver of a protocol got %v", r.GetDeviceList())
	}
	n.must(n.device("d2", "1", v1beta1.ConfigData{"mapper": "second"}))
	again.await("model m", "register d2 1")
	n.must(n.hub.RemoveDevice("default/d2"))
	again.await("remove d2", "remove model m")
	if r := f.register("x", true); len(r.GetDeviceList()) != 1 || desiredOf(r.GetDeviceList()[0]) != "4" {
		t.Errorf("after a restart of the driver: %v", r)
	}
	f.await()
}

func TestReportsOfAForeignDriver(t *testing.T) {
	n := newNode(t)
	n.model()
	n.must(n.device("d1", "1", nil))
	f := n.mapper("driver")
	f.register("x", false)
	f.await("model m", "register d1 1")
	report := func(device, value string) error {
		_, err := f.manager.ReportDeviceStatus(t.Context(), &family.ReportDeviceStatusRequest{DeviceName: device, DeviceNamespace: "default",
			ReportedDevice: &family.DeviceStatus{Twins: []*family.Twin{{PropertyName: "p", Reported: &family.TwinProperty{Value: value}}}}})
		return err
	}
	n.must(report("d1", "7"))
	for want, err := range map[codes.Code]error{codes.NotFound: report("none", "1"), codes.InvalidArgument: report("d1", "seven")} {
		if status.Code(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	n.must(report("d1", "200"))
	if v, _ := n.hub.Get("default/d1"); v.State.Twins["p"].Reported.Value != "200" || !strings.Contains(v.State.Twins["p"].Reported.Metadata["problem"], "above") {
		t.Errorf("%v", v.State.Twins["p"].Reported)
	}
	for i := range 500 { // there is no limit of one a second
		n.must(report("d1", fmt.Sprint(i%100)))
	}
	if _, err := f.manager.ReportDeviceStates(t.Context(), &family.ReportDeviceStatesRequest{DeviceName: "d1", State: "asleep"}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	for _, bad := range []*family.MapperInfo{{}, {Protocol: "x", Address: []byte("relative.sock")}, {Protocol: "x", Address: []byte("/a/../b")}} {
		if _, err := f.manager.MapperRegister(t.Context(), &family.MapperRegisterRequest{Mapper: bad}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
