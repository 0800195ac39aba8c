package mapper

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"time"

	dmi "github.com/kedge-io/kedge/pkg/twin/dmi/api"
	"google.golang.org/protobuf/proto"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/dmi/wire"
	"github.com/kedge-io/kedge/pkg/twin/mapper/driver"
	"github.com/kedge-io/kedge/pkg/twin/merge"
	"github.com/kedge-io/kedge/pkg/twin/model"
	"github.com/kedge-io/kedge/pkg/twin/push"
)

const (
	// deviceTimeout bounds one read or write of a device.
	deviceTimeout = 5 * time.Second
	// repeat is how long an unchanged value is not reported again.
	repeat = time.Minute
)

// worker drives one device.
type worker struct {
	mapper  *Mapper
	message *dmi.Device // guarded by mapper.mu
	cfg     driver.Config
	device  driver.Device
	cancel  context.CancelFunc
	done    chan struct{}
	kick    chan struct{}

	mu     sync.Mutex
	wanted map[string]*v1beta1.Value

	// Below: of the worker's goroutine only.
	taken   map[string]*v1beta1.Value // desired value that the device has taken up
	tried   map[string]time.Time      // when a write failed
	read    map[string]string
	next    map[string]time.Time // when a property is read
	sent    map[string]sending
	push    map[string]*push.Pusher
	pushed  map[string]time.Time
	state   string
	stateAt time.Time
	fresh   bool // the device was not there before: what is to be restored has to be written again
}

// sending is what was reported last.
type sending struct {
	reported, observed string
	at                 time.Time
}

// sameButDesired says whether two messages differ in desired values and twins at most.
func sameButDesired(a, b *dmi.Device) bool {
	bare := func(d *dmi.Device) *dmi.Device {
		d = proto.Clone(d).(*dmi.Device) // proto: Clone keeps the type
		d.Status = nil
		for _, p := range d.GetSpec().GetProperties() {
			p.Desired = nil
		}
		return d
	}
	return proto.Equal(bare(a), bare(b))
}

func startWorker(m *Mapper, message *dmi.Device, cfg driver.Config, status v1beta1.Status, device driver.Device) *worker {
	ctx, cancel := context.WithCancel(m.ctx)
	w := &worker{
		mapper: m, message: message, cfg: cfg, device: device, cancel: cancel, done: make(chan struct{}), kick: make(chan struct{}, 1),
		wanted: map[string]*v1beta1.Value{}, taken: map[string]*v1beta1.Value{}, tried: map[string]time.Time{}, read: map[string]string{},
		next: map[string]time.Time{}, sent: map[string]sending{}, fresh: true,
		push: map[string]*push.Pusher{}, pushed: map[string]time.Time{},
	}
	for _, p := range cfg.Properties {
		w.wanted[p.Name] = p.Desired
	}
	w.startPush()
	for _, t := range status.Twins {
		w.taken[t.PropertyName] = t.ObservedDesired
	}
	go w.run(ctx)
	return w
}

func (w *worker) stop() {
	w.cancel()
	<-w.done
}

// want replaces all desired values.
func (w *worker) want(desired map[string]*v1beta1.Value) {
	w.mu.Lock()
	w.wanted = maps.Clone(desired)
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *worker) run(ctx context.Context) {
	defer close(w.done)
	defer w.stopPush()
	defer func() {
		if err := w.device.Close(); err != nil {
			w.mapper.cfg.Log.Debug("device was not closed in good order", "device", w.name(), "error", err)
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			w.collect(ctx, time.Now())
			w.write(ctx, time.Now())
		case <-w.kick:
			w.write(ctx, time.Now())
		}
		w.report(ctx, time.Now())
		timer.Reset(max(time.Until(w.due()), time.Millisecond))
	}
}

func (w *worker) name() string { return key(w.cfg.Namespace, w.cfg.Name) }

// due is when the next property is to be read.
func (w *worker) due() time.Time {
	next := time.Now().Add(driver.DefaultCycle)
	for _, p := range w.cfg.Properties {
		if at := w.next[p.Name]; at.Before(next) {
			next = at
		}
	}
	return next
}

// collect reads what is due. A device of which nothing can be read is offline.
func (w *worker) collect(ctx context.Context, now time.Time) {
	tried, failed := 0, 0
	for _, p := range w.cfg.Properties {
		if ctx.Err() != nil || now.Before(w.next[p.Name]) {
			continue
		}
		w.next[p.Name] = now.Add(p.Collect)
		tried++
		ask, cancel := context.WithTimeout(ctx, deviceTimeout)
		text, err := w.device.Read(ask, p)
		cancel()
		if err != nil {
			failed++
			delete(w.read, p.Name)
			w.mapper.cfg.Log.Debug("property cannot be read", "device", w.name(), "property", p.Name, "error", err)
			continue
		}
		w.read[p.Name] = text
		w.pushValue(p, text, now)
	}
	switch {
	case tried == 0:
	case failed == tried:
		w.setState(ctx, "offline", now)
		w.fresh = true
	default:
		w.setState(ctx, "online", now)
		if w.fresh {
			w.fresh = false
			w.restore()
		}
	}
}

// restore forgets what the device has taken up where it does not have it any more and the visitor says restore: true. Virtual devices
// forget everything when their mapper ends.
func (w *worker) restore() {
	for _, p := range w.cfg.Properties {
		v := w.taken[p.Name]
		if text, ok := w.read[p.Name]; v != nil && ok && driver.Flag(p.Visitor, "restore", w.mapper.cfg.Protocol == "virtual") &&
			!driver.SameValue(p.Model, text, v.Value) {
			delete(w.taken, p.Name)
		}
	}
}

// write makes the device do what is wanted and was not yet done: each wish once.
func (w *worker) write(ctx context.Context, now time.Time) {
	w.mu.Lock()
	wanted := maps.Clone(w.wanted)
	w.mu.Unlock()
	for _, p := range w.cfg.Properties {
		v := wanted[p.Name]
		if v == nil || v.Value == "" || !p.Writable() || merge.Equal(v, w.taken[p.Name]) || now.Before(w.tried[p.Name]) || ctx.Err() != nil {
			continue
		}
		err := model.Desired(p.Model, v.Value)
		if err == nil {
			ask, cancel := context.WithTimeout(ctx, deviceTimeout)
			err = w.device.Write(ask, p, v.Value)
			cancel()
		}
		if err != nil {
			w.tried[p.Name] = now.Add(driver.DefaultCycle)
			w.mapper.cfg.Log.Warn("property cannot be set", "device", w.name(), "property", p.Name, "error", err)
			continue
		}
		delete(w.tried, p.Name)
		w.taken[p.Name] = v
		ask, cancel := context.WithTimeout(ctx, deviceTimeout)
		if text, err := w.device.Read(ask, p); err == nil {
			w.read[p.Name] = text
		}
		cancel()
	}
}

// report sends what has changed, in one message.
func (w *worker) report(ctx context.Context, now time.Time) {
	status := &dmi.DeviceStatus{}
	sent := map[string]sending{}
	for _, p := range w.cfg.Properties {
		text, ok := w.read[p.Name]
		last := w.sent[p.Name]
		current := sending{text, "", now}
		twin := &dmi.Twin{PropertyName: p.Name}
		if ok {
			twin.Reported = &dmi.TwinProperty{Value: text, Metadata: map[string]string{"timestamp": strconv.FormatInt(now.UnixMilli(), 10), "type": p.Model.Type}}
		}
		if v := w.taken[p.Name]; v != nil {
			current.observed = v.Value + "\x00" + v.Metadata["timestamp"]
			twin.ObservedDesired = wire.ToValue(v)
		}
		news := current.observed != last.observed || ok && (text != last.reported && now.Sub(last.at) >= p.Report || now.Sub(last.at) >= repeat)
		if !news || !ok && current.observed == last.observed {
			continue
		}
		sent[p.Name] = current
		if p.Cloud || twin.ObservedDesired != nil {
			status.Twins = append(status.Twins, twin)
		}
	}
	if len(status.Twins) == 0 {
		maps.Copy(w.sent, sent)
		return
	}
	ask, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := w.mapper.node.ReportDeviceStatus(ask, &dmi.ReportDeviceStatusRequest{
		DeviceName: w.cfg.Name, DeviceNamespace: w.cfg.Namespace, ReportedDevice: status,
	})
	if err != nil && !w.mapper.forgotten(err) {
		w.mapper.cfg.Log.Debug("report did not arrive", "device", w.name(), "error", err)
		return
	}
	maps.Copy(w.sent, sent)
}

// setState reports a new state, and an old one now and then.
func (w *worker) setState(ctx context.Context, state string, now time.Time) {
	if state == w.state && now.Sub(w.stateAt) < repeat {
		return
	}
	ask, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := w.mapper.node.ReportDeviceStates(ask, &dmi.ReportDeviceStatesRequest{DeviceName: w.cfg.Name, DeviceNamespace: w.cfg.Namespace, State: state})
	if err == nil || w.mapper.forgotten(err) {
		w.state, w.stateAt = state, now
	}
}
