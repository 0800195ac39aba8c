// Package object handles API objects in their wire form: it takes them out of the server's answers, keeps of each only what is
// needed, and writes answers in the form that a client wants. Objects are decoded only when somebody must look inside.
// It is an inner room of pkg/autonomy; only packages of it import it.
package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// Object is one API object. It is never modified.
type Object struct {
	// Kind says what Raw is.
	Kind schema.GroupVersionKind
	// Raw is the protobuf message of a kind that has one, else JSON.
	Raw []byte
	// Namespace, Name, UID and Version repeat the metadata; Version is the resourceVersion.
	Namespace, Name, UID string
	Version              uint64
}

// message is what the Go types of k8s.io/api are.
type message interface {
	runtime.Object
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// IsProto says whether objects of this kind are kept as protobuf.
func IsProto(kind schema.GroupVersionKind) bool { return newMessage(kind) != nil }

func newMessage(kind schema.GroupVersionKind) message {
	obj, err := scheme.Scheme.New(kind)
	if err != nil {
		return nil
	}
	m, ok := obj.(message)
	if !ok {
		return nil
	}
	return m
}

// New makes an Object of its wire form, without the record of who set which field.
func New(kind schema.GroupVersionKind, raw []byte) (*Object, error) {
	o := &Object{Kind: kind, Raw: raw}
	if IsProto(kind) {
		stripped, err := withoutManagedFields(raw)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", kind.Kind, err)
		}
		o.Raw = stripped
	}
	m, err := o.Meta()
	if err != nil {
		return nil, err
	}
	o.Namespace, o.Name, o.UID = m.Namespace, m.Name, string(m.UID)
	o.Version, err = ParseVersion(m.ResourceVersion)
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", kind.Kind, m.Name, err)
	}
	return o, nil
}

// ParseVersion reads a resourceVersion; an empty one is 0.
func ParseVersion(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resourceVersion %q is not a number", s)
	}
	return v, nil
}

// FormatVersion writes a resourceVersion.
func FormatVersion(v uint64) string { return strconv.FormatUint(v, 10) }

// Of makes an Object of a decoded one.
func Of(kind schema.GroupVersionKind, obj runtime.Object) (*Object, error) {
	var raw []byte
	var err error
	if m, ok := obj.(message); ok && IsProto(kind) {
		raw, err = m.Marshal()
	} else {
		raw, err = json.Marshal(obj)
	}
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind.Kind, err)
	}
	return New(kind, raw)
}

// Key names an object within its resource.
func Key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// Key names the object within its resource.
func (o *Object) Key() string { return Key(o.Namespace, o.Name) }

// Meta decodes the metadata.
func (o *Object) Meta() (*metav1.ObjectMeta, error) {
	var p metav1.PartialObjectMetadata
	var err error
	if IsProto(o.Kind) {
		err = p.Unmarshal(o.Raw) // metadata is field 1 of every kind
	} else {
		err = json.Unmarshal(o.Raw, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("read metadata of %s: %w", o.Kind.Kind, err)
	}
	p.ManagedFields = nil
	return &p.ObjectMeta, nil
}

// Decode returns the object as its Go type, or as *unstructured.Unstructured for a kind that has none. It is the caller's.
func (o *Object) Decode() (runtime.Object, error) {
	if m := newMessage(o.Kind); m != nil {
		if err := m.Unmarshal(o.Raw); err != nil {
			return nil, fmt.Errorf("decode %s: %w", o.Kind.Kind, err)
		}
		m.GetObjectKind().SetGroupVersionKind(o.Kind)
		return m, nil
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(o.Raw); err != nil {
		return nil, fmt.Errorf("decode %s: %w", o.Kind.Kind, err)
	}
	u.SetManagedFields(nil)
	return u, nil
}

// WithoutManagedFields drops the record of who set which field from an object in its protobuf envelope.
func WithoutManagedFields(data []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(data, []byte(protoPrefix))
	if !ok {
		return nil, errors.New("object is not protobuf")
	}
	var u runtime.Unknown
	if err := u.Unmarshal(rest); err != nil {
		return nil, fmt.Errorf("read envelope: %w", err)
	}
	var err error
	if u.Raw, err = withoutManagedFields(u.Raw); err != nil {
		return nil, err
	}
	out, err := u.Marshal()
	if err != nil {
		return nil, fmt.Errorf("write envelope: %w", err)
	}
	return append([]byte(protoPrefix), out...), nil
}

// withoutManagedFields drops field 17 of the metadata, which is field 1.
func withoutManagedFields(raw []byte) ([]byte, error) {
	const metadata, managedFields = 1, 17
	return rewrite(raw, func(number protowire.Number, value []byte) ([]byte, bool, error) {
		if number != metadata {
			return value, true, nil
		}
		meta, err := rewrite(value, func(n protowire.Number, v []byte) ([]byte, bool, error) { return v, n != managedFields, nil })
		return meta, true, err
	})
}

// rewrite copies a message; change returns what becomes of each field that holds bytes, and whether it stays.
func rewrite(in []byte, change func(protowire.Number, []byte) ([]byte, bool, error)) ([]byte, error) {
	out := make([]byte, 0, len(in))
	for len(in) > 0 {
		number, kind, tag := protowire.ConsumeTag(in)
		if tag < 0 {
			return nil, protowire.ParseError(tag)
		}
		size := protowire.ConsumeFieldValue(number, kind, in[tag:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		if kind != protowire.BytesType {
			out = append(out, in[:tag+size]...)
		} else {
			value, _ := protowire.ConsumeBytes(in[tag:])
			value, keep, err := change(number, value)
			if err != nil {
				return nil, err
			}
			if keep {
				out = protowire.AppendBytes(protowire.AppendTag(out, number, kind), value)
			}
		}
		in = in[tag+size:]
	}
	return out, nil
}
