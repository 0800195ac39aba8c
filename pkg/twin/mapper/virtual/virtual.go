// Package virtual simulates sensors and actuators: what can be set keeps its value, what can only be read wanders between its bounds. It is
// for trying out and for tests. Rooms of twin import it.
package virtual

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/mapper/driver"
)

// Protocol is the name of the protocol in devices.
const Protocol = "virtual"

// Opener makes simulated devices.
type Opener struct {
	// Log, when set, receives each value that is written to a device.
	Log *slog.Logger
}

// device is one simulated device.
type device struct {
	log    *slog.Logger
	name   string
	random *rand.Rand
	held   map[string]string  // what was written
	walk   map[string]float64 // where a sensor is, from 0 to 1
}

// Open takes protocol.configData.seed, so that a device wanders the same way each time. A visitor's configData.value is what a property
// has before it is set.
func (o Opener) Open(cfg driver.Config) (driver.Device, error) {
	seed, _ := driver.Whole(cfg.Protocol, "seed")
	h := fnv.New64a()
	_, _ = h.Write([]byte(cfg.Namespace + "/" + cfg.Name))
	d := &device{
		log: o.Log, name: cfg.Namespace + "/" + cfg.Name, random: rand.New(rand.NewPCG(uint64(seed), h.Sum64())),
		held: map[string]string{}, walk: map[string]float64{},
	}
	for _, p := range cfg.Properties {
		if p.Model.Type == v1beta1.TypeStream {
			return nil, fmt.Errorf("property %s: a virtual device has no streams", p.Name)
		}
		if value, ok := p.Visitor["value"]; ok {
			d.held[p.Name] = fmt.Sprint(value)
		}
	}
	return d, nil
}

// Read implements driver.Device.
func (d *device) Read(_ context.Context, p driver.Property) (string, error) {
	if v, ok := d.held[p.Name]; ok {
		return v, nil
	}
	low, high := bounds(p.Model)
	switch strings.ToUpper(p.Model.Type) {
	case v1beta1.TypeInt:
		if p.Writable() {
			return strconv.FormatInt(int64(math.Ceil(low)), 10), nil
		}
		return strconv.FormatInt(int64(math.Round(low+d.step(p.Name)*(high-low))), 10), nil
	case v1beta1.TypeFloat, v1beta1.TypeDouble:
		if p.Writable() {
			return strconv.FormatFloat(low, 'f', -1, 64), nil
		}
		return strconv.FormatFloat(low+d.step(p.Name)*(high-low), 'f', 2, 64), nil
	case v1beta1.TypeBoolean:
		return strconv.FormatBool(!p.Writable() && d.step(p.Name) > 0.5), nil
	case v1beta1.TypeBytes:
		return strconv.FormatUint(uint64(d.random.Uint32()), 16), nil
	}
	return "", nil
}

// step moves a sensor a little.
func (d *device) step(name string) float64 {
	at, ok := d.walk[name]
	if !ok {
		at = d.random.Float64()
	}
	at += (d.random.Float64() - 0.5) / 20
	at = min(max(at, 0), 1)
	d.walk[name] = at
	return at
}

// bounds are those of the model, else 0 to 100.
func bounds(p v1beta1.ModelProperty) (low, high float64) {
	low, errLow := strconv.ParseFloat(p.Minimum, 64)
	high, errHigh := strconv.ParseFloat(p.Maximum, 64)
	if errLow != nil {
		low = 0
	}
	if errHigh != nil {
		high = low + 100
	}
	return low, high
}

// Write implements driver.Device.
func (d *device) Write(_ context.Context, p driver.Property, value string) error {
	if d.log != nil {
		d.log.Info("virtual device was set", "device", d.name, "property", p.Name, "value", value)
	}
	d.held[p.Name] = value
	return nil
}

// Close implements driver.Device.
func (*device) Close() error { return nil }
