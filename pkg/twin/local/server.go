// Package local is the operator's door to the twins of a node: a small HTTP API on a unix socket, which kedge device uses. It works with and
// without the API server. Rooms of twin import it.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/socket"
	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/model"
)

// maxWatchers bounds how many watch at a time.
const maxWatchers = 32

// Config says where the door is.
type Config struct {
	Hub    *hub.Hub
	Socket string
	Log    *slog.Logger
}

// Server serves the socket.
type Server struct {
	cfg      Config
	watchers chan struct{}
}

// NewServer starts nothing.
func NewServer(cfg Config) *Server {
	return &Server{cfg: cfg, watchers: make(chan struct{}, maxWatchers)}
}

// Device is one device as people see it.
type Device struct {
	Namespace  string     `json:"namespace"`
	Name       string     `json:"name"`
	Node       string     `json:"node"`
	Model      string     `json:"model,omitempty"`
	Protocol   string     `json:"protocol,omitempty"`
	State      string     `json:"state,omitempty"`
	LastOnline time.Time  `json:"lastOnline,omitzero"`
	Properties []Property `json:"properties,omitempty"`
}

// Property is one property. Nil values were never set.
type Property struct {
	Name     string `json:"name"`
	Type     string `json:"type,omitempty"`
	Access   string `json:"access,omitempty"`
	Unit     string `json:"unit,omitempty"`
	Minimum  string `json:"minimum,omitempty"`
	Maximum  string `json:"maximum,omitempty"`
	Desired  *Value `json:"desired,omitempty"`
	Observed *Value `json:"observed,omitempty"`
	Reported *Value `json:"reported,omitempty"`
	// Pending is true while the API does not know the desired value.
	Pending bool `json:"pending,omitempty"`
}

// Value is a value with its time, and what is wrong with it.
type Value struct {
	Value   string    `json:"value"`
	Time    time.Time `json:"time,omitzero"`
	Problem string    `json:"problem,omitempty"`
}

// newValue reads the value of an API object; nil stays nil.
func newValue(v *v1beta1.Value) *Value {
	if v == nil {
		return nil
	}
	out := &Value{Value: v.Value, Problem: v.Metadata["problem"]}
	if ms, err := strconv.ParseInt(v.Metadata["timestamp"], 10, 64); err == nil {
		out.Time = time.UnixMilli(ms).UTC()
	}
	return out
}

// Describe brings a view into the form for people.
func Describe(node string, v hub.View) Device {
	d := Device{
		Namespace: v.Device.Namespace, Name: v.Device.Name, Node: node, Protocol: v.Device.Spec.Protocol.ProtocolName,
		State: v.State.State, LastOnline: v.State.LastOnline,
	}
	if r := v.Device.Spec.DeviceModelRef; r != nil {
		d.Model = r.Name
	}
	seen := map[string]bool{}
	add := func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		p, t := Property{Name: name}, v.State.Twins[name]
		if mp, ok := model.Property(v.Model, name); ok {
			p.Type, p.Access, p.Unit, p.Minimum, p.Maximum = mp.Type, mp.AccessMode, mp.Unit, mp.Minimum, mp.Maximum
		} else {
			p.Type = t.Type
		}
		p.Desired, p.Observed, p.Reported, p.Pending = newValue(t.Desired), newValue(t.Observed), newValue(t.Reported), t.Pending
		d.Properties = append(d.Properties, p)
	}
	for _, p := range v.Device.Spec.Properties {
		add(p.Name)
	}
	var rest []string
	for name := range v.State.Twins {
		rest = append(rest, name)
	}
	slices.Sort(rest)
	for _, name := range rest {
		add(name)
	}
	return d
}

// Run serves until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	l, err := socket.Listen(s.cfg.Socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/devices", s.list)
	mux.HandleFunc("GET /v1/devices/{namespace}/{name}", s.get)
	mux.HandleFunc("PUT /v1/devices/{namespace}/{name}/properties/{property}", s.set)
	mux.HandleFunc("GET /v1/watch", s.watch)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	devices := []Device{}
	for _, v := range s.cfg.Hub.List() {
		devices = append(devices, Describe(s.cfg.Hub.Node(), v))
	}
	answer(w, http.StatusOK, devices)
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	v, ok := s.cfg.Hub.Get(hub.Key(r.PathValue("namespace"), r.PathValue("name")))
	if !ok {
		fail(w, http.StatusNotFound, hub.ErrUnknownDevice)
		return
	}
	answer(w, http.StatusOK, Describe(s.cfg.Hub.Node(), v))
}

// wish is the body of a request that sets a property.
type wish struct {
	Value *string `json:"value"`
}

func (s *Server) set(w http.ResponseWriter, r *http.Request) {
	var body wish
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 6*model.MaxValue+1024)).Decode(&body) // a byte is at most \u00XX
	if err != nil || body.Value == nil {
		fail(w, http.StatusBadRequest, errors.New(`want a body of the form {"value": "TEXT"}`))
		return
	}
	key := hub.Key(r.PathValue("namespace"), r.PathValue("name"))
	err = s.cfg.Hub.SetDesired(key, r.PathValue("property"), v1beta1.Value{Value: *body.Value})
	switch {
	case errors.Is(err, hub.ErrUnknownDevice), errors.Is(err, hub.ErrUnknownProperty):
		fail(w, http.StatusNotFound, err)
	case errors.Is(err, hub.ErrRefused):
		fail(w, http.StatusUnprocessableEntity, err)
	case err != nil:
		fail(w, http.StatusInternalServerError, err)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// watch sends every device at once, and again whenever it changes, one JSON document a line.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	select {
	case s.watchers <- struct{}{}:
		defer func() { <-s.watchers }()
	default:
		fail(w, http.StatusTooManyRequests, errors.New("too many watch already"))
		return
	}
	changes := s.cfg.Hub.Subscribe(hub.Specification|hub.Desired|hub.Reported|hub.Refreshed, true)
	defer changes.Close()
	out, only := http.NewResponseController(w), r.URL.Query().Get("device")
	w.Header().Set("Content-Type", "application/x-ndjson")
	for changes.Await(r.Context()) {
		keys, _ := changes.Take()
		for _, key := range keys {
			v, ok := s.cfg.Hub.Get(key)
			if !ok || only != "" && key != only {
				continue
			}
			if err := json.NewEncoder(w).Encode(Describe(s.cfg.Hub.Node(), v)); err != nil {
				return
			}
		}
		if err := out.Flush(); err != nil {
			return
		}
	}
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, code int, err error) {
	answer(w, code, map[string]string{"error": err.Error()})
}
