package dmi

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	dmi "github.com/kedge-io/kedge/pkg/twin/dmi/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kedge-io/kedge/pkg/twin/dmi/wire"
	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/merge"
	"github.com/kedge-io/kedge/pkg/twin/store"
)

const (
	// callTimeout bounds one call to a driver.
	callTimeout = 10 * time.Second
	// firstRetry and lastRetry bound the pause after a driver could not be reached or refused a device.
	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second
	// forget is how long a driver that cannot be reached keeps its devices from another one of the same protocol.
	forget = time.Minute
)

// session is one registered driver. Only its own goroutine uses mapper after begin.
type session struct {
	server  *Server
	mapper  mapper
	changes *hub.Changes
	cancel  context.CancelFunc
	ctx     context.Context
	done    chan struct{}
	lost    bool // guarded by server.mu: not reached for so long that others of its protocol serve its devices
}

// open makes the session of a driver in place of an earlier one of the same name or address.
func (s *Server) open(m mapper) (*session, error) {
	s.mu.Lock()
	var replaced []*session
	for name, old := range s.sessions {
		if name == m.Name || old.mapper.Address == m.Address {
			replaced = append(replaced, old)
			delete(s.sessions, name)
		}
	}
	if len(s.sessions) >= maxMappers {
		s.mu.Unlock()
		return nil, fmt.Errorf("%d drivers are registered already", maxMappers)
	}
	ses := &session{server: s, mapper: m, changes: s.cfg.Hub.Subscribe(hub.Specification|hub.Desired, true), done: make(chan struct{})}
	ses.ctx, ses.cancel = context.WithCancel(s.ctx)
	s.sessions[m.Name] = ses
	s.mu.Unlock()
	for _, old := range replaced {
		old.cancel()
		<-old.done
		if old.mapper.Name != m.Name {
			_ = s.cfg.Hub.Store().Write(store.Change{Bucket: store.Mappers, Key: old.mapper.Name})
		}
	}
	return ses, nil
}

// begin starts the session.
func (ses *session) begin() {
	ses.server.running.Go(func() {
		defer close(ses.done)
		defer ses.changes.Close()
		ses.run()
	})
	ses.server.reassign(ses)
}

// restore takes up the drivers of before a restart: they are still there and will not register again.
func (s *Server) restore() error {
	s.mu.Lock()
	s.sessions = map[string]*session{}
	s.mu.Unlock()
	var known []mapper
	err := s.cfg.Hub.Store().Each(store.Mappers, func(_ string, value []byte) error {
		m := mapper{Models: map[string]uint64{}, Devices: map[string]uint64{}}
		if err := json.Unmarshal(value, &m); err != nil {
			return err
		}
		known = append(known, m)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read registered drivers: %w", err)
	}
	for _, m := range known {
		ses, err := s.open(m)
		if err != nil {
			return err
		}
		ses.begin()
	}
	return nil
}

// reassign lets the other drivers of the protocol look again at who serves which device.
func (s *Server) reassign(because *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ses := range s.sessions {
		if ses != because && ses.mapper.Protocol == because.mapper.Protocol {
			fresh := s.cfg.Hub.Subscribe(hub.Specification|hub.Desired, true)
			ses.changes.Join(fresh)
			fresh.Close()
		}
	}
}

// mine says whether the session serves a device: the driver that protocol.configData.mapper names, else the first of the protocol.
func (ses *session) mine(v hub.View) bool {
	p := v.Device.Spec.Protocol
	if p.ProtocolName != ses.mapper.Protocol || v.Model == nil {
		return false
	}
	if name, ok := p.ConfigData["mapper"].(string); ok {
		return name == ses.mapper.Name
	}
	ses.server.mu.Lock()
	defer ses.server.mu.Unlock()
	for name, other := range ses.server.sessions {
		if other.mapper.Protocol == p.ProtocolName && name < ses.mapper.Name && !other.lost {
			return false
		}
	}
	return true
}

// everything is what a driver that registers is told at once; it counts as told.
func (ses *session) everything() (models []*dmi.DeviceModel, devices []*dmi.Device) {
	for _, v := range ses.server.cfg.Hub.List() {
		if !ses.mine(v) {
			continue
		}
		d, err := wire.Device(v.Device, merge.Status(v.State))
		if err != nil {
			ses.server.cfg.Log.Warn("device cannot be given to its driver", "device", v.Key, "error", err)
			continue
		}
		key := hub.Key(v.Model.Namespace, v.Model.Name)
		if _, told := ses.mapper.Models[key]; !told {
			models = append(models, wire.Model(v.Model))
			ses.mapper.Models[key] = sum(v.Model.Spec)
		}
		devices = append(devices, d)
		ses.mapper.Devices[v.Key] = sum(v.Device.Spec)
	}
	return models, devices
}

// sum is a checksum to find changes by.
func sum(v any) uint64 {
	data, _ := json.Marshal(v) // API types only
	h := fnv.New64a()
	_, _ = h.Write(data)
	return h.Sum64()
}

// run tells the driver of changes until the session ends.
func (ses *session) run() {
	conn, err := grpc.NewClient("unix://"+ses.mapper.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		ses.server.cfg.Log.Warn("driver cannot be called", "mapper", ses.mapper.Name, "error", err)
		return
	}
	defer func() { _ = conn.Close() }()
	ses.save()
	client, pause, since := dmi.Mapper{Conn: conn}, firstRetry, time.Now()
	for ses.changes.Await(ses.ctx) {
		keys, _ := ses.changes.Take()
		failed := ses.tell(client, keys)
		if len(failed) == 0 {
			pause, since = firstRetry, time.Now()
			ses.setLost(false)
			continue
		}
		if time.Since(since) > forget {
			ses.setLost(true)
		}
		select {
		case <-ses.ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastRetry)
		ses.changes.Again(failed)
	}
}

func (ses *session) setLost(lost bool) {
	ses.server.mu.Lock()
	change := ses.lost != lost
	ses.lost = lost
	ses.server.mu.Unlock()
	if change {
		ses.server.reassign(ses)
	}
}

// save keeps what the driver was told, for a restart.
func (ses *session) save() {
	data, _ := json.Marshal(ses.mapper) // strings and numbers only
	if err := ses.server.cfg.Hub.Store().Write(store.Change{Bucket: store.Mappers, Key: ses.mapper.Name, Value: data}); err != nil {
		ses.server.cfg.Log.Warn("a registered driver is not on disk", "mapper", ses.mapper.Name, "error", err)
	}
}

// unusedModels are those that the driver knows and no device of its needs any more.
func (ses *session) unusedModels() []string {
	used := map[string]bool{}
	for key := range ses.mapper.Devices {
		if v, ok := ses.server.cfg.Hub.Get(key); ok && v.Model != nil {
			used[hub.Key(v.Model.Namespace, v.Model.Name)] = true
		}
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(ses.mapper.Models)), func(key string) bool { return used[key] })
}
