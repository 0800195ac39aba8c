// Package driver is what a protocol has to provide to become a mapper: open a device, read and write its properties. It holds no code of a
// protocol. Rooms of twin import it.
package driver

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// DefaultCycle is how often a property is read and reported when nothing is said.
const DefaultCycle = time.Second

// minCycle keeps a cycle that was meant otherwise from eating a processor.
const minCycle = 10 * time.Millisecond

// Config is one device as its driver needs it.
type Config struct {
	Namespace, Name string
	// Protocol is spec.protocol.configData.
	Protocol   v1beta1.ConfigData
	Properties []Property
}

// Property is one property with what its model says.
type Property struct {
	Name    string
	Model   v1beta1.ModelProperty
	Visitor v1beta1.ConfigData // spec.properties[].visitors.configData
	Desired *v1beta1.Value
	Collect time.Duration
	Report  time.Duration
	Cloud   bool
	Push    *v1beta1.PushMethod
}

// Opener opens devices of one protocol.
type Opener interface {
	// Open checks the configuration and prepares the device; it need not reach it. Errors name the field that is wrong.
	Open(cfg Config) (Device, error)
}

// Device is one opened device. Its methods are called by one goroutine.
type Device interface {
	// Read returns the value as text.
	Read(ctx context.Context, p Property) (string, error)
	// Write makes the value true, or fails.
	Write(ctx context.Context, p Property, value string) error
	// Close gives back what Open took.
	Close() error
}

// Writable says whether a property may be set.
func (p Property) Writable() bool { return p.Model.AccessMode != v1beta1.ReadOnly }

// Cycle turns milliseconds of the API into a duration.
func Cycle(ms int64) time.Duration {
	if ms <= 0 {
		return DefaultCycle
	}
	if ms > int64(24*time.Hour/time.Millisecond) {
		return 24 * time.Hour
	}
	return max(time.Duration(ms)*time.Millisecond, minCycle)
}

// SameValue says whether two texts mean the same value of the property's type: 1 and 1.0, true and TRUE.
func SameValue(p v1beta1.ModelProperty, a, b string) bool {
	if a == b {
		return true
	}
	switch strings.ToUpper(p.Type) {
	case v1beta1.TypeInt, v1beta1.TypeFloat, v1beta1.TypeDouble:
		x, errX := strconv.ParseFloat(a, 64)
		y, errY := strconv.ParseFloat(b, 64)
		return errX == nil && errY == nil && x == y
	case v1beta1.TypeBoolean:
		x, errX := strconv.ParseBool(a)
		y, errY := strconv.ParseBool(b)
		return errX == nil && errY == nil && x == y
	}
	return false
}

// Text reads a text of free configuration.
func Text(c v1beta1.ConfigData, key string) string {
	s, _ := c[key].(string)
	return s
}

// Whole reads a whole number of free configuration, which may be written as text, and says whether there is one.
func Whole(c v1beta1.ConfigData, key string) (int64, bool) {
	switch v := c[key].(type) {
	case int64:
		return v, true
	case float64:
		return int64(v), v == float64(int64(v))
	case string:
		n, err := strconv.ParseInt(v, 0, 64)
		return n, err == nil
	}
	return 0, false
}

// Number reads a number of free configuration.
func Number(c v1beta1.ConfigData, key string) (float64, bool) {
	switch v := c[key].(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case string:
		f, err := strconv.ParseFloat(v, 64)
		return f, err == nil
	}
	return 0, false
}

// Flag reads a yes or no of free configuration; other says what counts when there is none.
func Flag(c v1beta1.ConfigData, key string, other bool) bool {
	switch v := c[key].(type) {
	case bool:
		return v
	case string:
		if b, err := strconv.ParseBool(v); err == nil {
			return b
		}
	}
	return other
}
