// Package v1beta1 is the API of devices: what kinds there are, one object for each, and what each reports. Its fields are those that
// drivers and YAML of the family already use. Data only; anyone may import it.
package v1beta1

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// Names of the API.
const (
	Group   = "devices.kubeedge.io"
	Version = "v1beta1"

	// AnnotationNode names, on a DeviceStatus, the node that writes it.
	AnnotationNode = "devices.kedge.io/node"
	// ExtensionSequence is the key of status.extensions that says which report of the node the status shows: store:number.
	ExtensionSequence = "kedgeSequence"
)

// Types of a property's values.
const (
	TypeInt     = "INT"
	TypeFloat   = "FLOAT"
	TypeDouble  = "DOUBLE"
	TypeString  = "STRING"
	TypeBoolean = "BOOLEAN"
	TypeBytes   = "BYTES"
	TypeStream  = "STREAM"
)

// Access modes of a property.
const (
	ReadWrite = "ReadWrite"
	ReadOnly  = "ReadOnly"
)

// Devices, Models and Statuses are what a dynamic client needs to reach the kinds.
func Devices() schema.GroupVersionResource { return resource("devices") }

// Models reaches DeviceModels.
func Models() schema.GroupVersionResource { return resource("devicemodels") }

// Statuses reaches DeviceStatuses.
func Statuses() schema.GroupVersionResource { return resource("devicestatuses") }

func resource(name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: Group, Version: Version, Resource: name}
}

// ConfigData is free-form configuration for a driver. Whole JSON numbers are int64, others float64.
type ConfigData map[string]any

// UnmarshalJSON keeps whole numbers whole.
func (c *ConfigData) UnmarshalJSON(data []byte) error {
	var m map[string]any
	if err := utiljson.Unmarshal(data, &m); err != nil {
		return err
	}
	*c = m
	return nil
}

// DeviceModel says what devices of one kind have in common.
type DeviceModel struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec DeviceModelSpec `json:"spec,omitempty"`
}

// DeviceModelSpec is the protocol and the properties of a kind of device.
type DeviceModelSpec struct {
	Protocol           string          `json:"protocol,omitempty"`
	ProtocolConfigData ConfigData      `json:"protocolConfigData,omitempty"`
	Properties         []ModelProperty `json:"properties,omitempty"`
}

// ModelProperty is one thing that can be read or set. Minimum and Maximum are numbers as text, or empty.
type ModelProperty struct {
	Name        string   `json:"name,omitempty"`
	Description string   `json:"description,omitempty"`
	Type        string   `json:"type,omitempty"`
	AccessMode  string   `json:"accessMode,omitempty"`
	Minimum     string   `json:"minimum,omitempty"`
	Maximum     string   `json:"maximum,omitempty"`
	Unit        string   `json:"unit,omitempty"`
	Visitors    *Visitor `json:"visitors,omitempty"`
}

// Device is one device that hangs on a node.
type Device struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec DeviceSpec `json:"spec,omitempty"`
}

// DeviceSpec says where a device is, how it is reached and what is wanted of it.
type DeviceSpec struct {
	DeviceModelRef *ModelRef      `json:"deviceModelRef,omitempty"`
	NodeName       string         `json:"nodeName,omitempty"`
	Properties     []Property     `json:"properties,omitempty"`
	Protocol       ProtocolConfig `json:"protocol,omitempty"`
	Methods        []Method       `json:"methods,omitempty"`
	StateReport    *StateReport   `json:"stateReport,omitempty"`
}

// ModelRef names the DeviceModel in the device's namespace.
type ModelRef struct {
	Name string `json:"name,omitempty"`
}

// Property is how one property of the device is read, reported and set. Cycles are in milliseconds; 0 means one second.
type Property struct {
	Name          string      `json:"name,omitempty"`
	Desired       *Value      `json:"desired,omitempty"`
	Visitors      *Visitor    `json:"visitors,omitempty"`
	ReportCycle   int64       `json:"reportCycle,omitempty"`
	CollectCycle  int64       `json:"collectCycle,omitempty"`
	ReportToCloud bool        `json:"reportToCloud,omitempty"`
	PushMethod    *PushMethod `json:"pushMethod,omitempty"`
}

// Value is a value with what is known about it: timestamp in milliseconds as text, type.
type Value struct {
	Value    string            `json:"value"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Visitor says how a driver reaches one value.
type Visitor struct {
	ProtocolName string     `json:"protocolName,omitempty"`
	ConfigData   ConfigData `json:"configData,omitempty"`
}

// ProtocolConfig says how a driver reaches the device.
type ProtocolConfig struct {
	ProtocolName string     `json:"protocolName,omitempty"`
	ConfigData   ConfigData `json:"configData,omitempty"`
}

// Method groups properties that are set together.
type Method struct {
	Name          string   `json:"name,omitempty"`
	Description   string   `json:"description,omitempty"`
	PropertyNames []string `json:"propertyNames,omitempty"`
}

// StateReport says how often the device's state is reported, in milliseconds.
type StateReport struct {
	ReportToCloud bool  `json:"reportToCloud,omitempty"`
	ReportCycle   int64 `json:"reportCycle,omitempty"`
}

// DeviceStatus is what a device reports. It has the name of its Device.
type DeviceStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status Status `json:"status,omitempty"`
}

// Status holds the twins. LastOnlineTime is in RFC 3339.
type Status struct {
	Twins          []Twin         `json:"twins,omitempty"`
	State          string         `json:"state,omitempty"`
	LastOnlineTime string         `json:"lastOnlineTime,omitempty"`
	Extensions     map[string]any `json:"extensions,omitempty"`
}

// Twin is one property as reported, beside the desired value that the device has taken up.
type Twin struct {
	PropertyName    string `json:"propertyName,omitempty"`
	Reported        *Value `json:"reported,omitempty"`
	ObservedDesired *Value `json:"observedDesired,omitempty"`
}

// Decode reads an object of this package from its JSON form.
func Decode[T Device | DeviceModel | DeviceStatus](obj interface{ MarshalJSON() ([]byte, error) }) (*T, error) {
	data, err := obj.MarshalJSON()
	if err != nil {
		return nil, err
	}
	out := new(T)
	return out, json.Unmarshal(data, out)
}
