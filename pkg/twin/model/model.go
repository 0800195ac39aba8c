// Package model holds what is allowed: whether a value fits its property, a device its model, a model itself. It is pure: the same answers
// serve at admission and on the way to a driver. Rooms of twin import it.
package model

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

const (
	// MaxValue is the most bytes that a value may have.
	MaxValue = 64 << 10
	// maxName is the most bytes that the name of a property may have.
	maxName = 128
	// maxProperties is the most properties that a model or device may have.
	maxProperties = 512
	// nanosecondTrap is the cycle from which on somebody meant nanoseconds: 10^9 ms are eleven days.
	nanosecondTrap = 1_000_000_000
)

// Value says why text is no value of the property, or nil. Numbers must lie within minimum and maximum.
func Value(p v1beta1.ModelProperty, text string) error {
	if err := checkText(text); err != nil {
		return err
	}
	switch strings.ToUpper(p.Type) {
	case v1beta1.TypeInt:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", clip(text))
		}
		return within(p, float64(n), text)
	case v1beta1.TypeFloat, v1beta1.TypeDouble:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("%q is not a number", clip(text))
		}
		return within(p, f, text)
	case v1beta1.TypeBoolean:
		if _, err := strconv.ParseBool(text); err != nil {
			return fmt.Errorf("%q is neither true nor false", clip(text))
		}
	}
	return nil
}

// RangeError is the error for a number of the right type that lies outside minimum and maximum.
type RangeError struct{ text string }

// Error says which bound.
func (e *RangeError) Error() string { return e.text }

func within(p v1beta1.ModelProperty, f float64, text string) error {
	if low, err := strconv.ParseFloat(p.Minimum, 64); err == nil && f < low {
		return &RangeError{fmt.Sprintf("%s is below the minimum %s", clip(text), p.Minimum)}
	}
	if high, err := strconv.ParseFloat(p.Maximum, 64); err == nil && f > high {
		return &RangeError{fmt.Sprintf("%s is above the maximum %s", clip(text), p.Maximum)}
	}
	return nil
}

// checkText says why text cannot be a value of any type, or nil.
func checkText(text string) error {
	if len(text) > MaxValue {
		return fmt.Errorf("the value has %d bytes, more than %d", len(text), MaxValue)
	}
	if !utf8.ValidString(text) {
		return errors.New("the value is not UTF-8")
	}
	return nil
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

// Desired says why the property may not be set to text, or nil. An empty text means that nothing is wanted.
func Desired(p v1beta1.ModelProperty, text string) error {
	if text == "" && !strings.EqualFold(p.Type, v1beta1.TypeString) || text == "" && p.AccessMode == v1beta1.ReadOnly {
		return nil
	}
	if p.AccessMode == v1beta1.ReadOnly {
		return errors.New("the property is ReadOnly")
	}
	return Value(p, text)
}

// Property finds a property of a model by name.
func Property(m *v1beta1.DeviceModel, name string) (v1beta1.ModelProperty, bool) {
	if m != nil {
		for _, p := range m.Spec.Properties {
			if p.Name == name {
				return p, true
			}
		}
	}
	return v1beta1.ModelProperty{}, false
}

// Name says why s cannot name a property, or nil: it is part of topics and addresses.
func Name(s string) error {
	if s == "" || len(s) > maxName || !utf8.ValidString(s) || strings.ContainsAny(s, "+#\x00\n") {
		return fmt.Errorf("%q cannot be the name of a property: want 1 to %d characters, and none of + # or a line end", clip(s), maxName)
	}
	return nil
}
