package object

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// Media types of the API.
const (
	MediaProto = "application/vnd.kubernetes.protobuf"
	MediaJSON  = "application/json"
)

// MaxSize bounds one object, in bytes: what etcd takes, and some.
const MaxSize = 4 << 20

// protoPrefix begins every protobuf answer.
const protoPrefix = "k8s\x00"

// List is a decoded list.
type List struct {
	// Kind is the kind of the items.
	Kind     schema.GroupVersionKind
	Version  uint64
	Continue string
	Items    []*Object
}

// Accept is what to ask the server for: protobuf for kinds that have it.
func Accept(proto bool) string {
	if proto {
		return MediaProto + "," + MediaJSON
	}
	return MediaJSON
}

// IsProtoType says whether a content type is protobuf.
func IsProtoType(contentType string) bool { return strings.HasPrefix(contentType, MediaProto) }

// open takes a message out of its envelope.
func open(data []byte) (schema.GroupVersionKind, []byte, error) {
	rest, ok := bytes.CutPrefix(data, []byte(protoPrefix))
	if !ok {
		return schema.GroupVersionKind{}, nil, errors.New("answer is not protobuf")
	}
	var u runtime.Unknown
	if err := u.Unmarshal(rest); err != nil {
		return schema.GroupVersionKind{}, nil, fmt.Errorf("read envelope: %w", err)
	}
	return schema.FromAPIVersionAndKind(u.APIVersion, u.Kind), u.Raw, nil
}

// Read reads one object in the form that contentType says.
func Read(contentType string, data []byte) (*Object, error) {
	if IsProtoType(contentType) {
		kind, raw, err := open(data)
		if err != nil {
			return nil, err
		}
		return New(kind, raw)
	}
	return readJSON(data, schema.GroupVersionKind{})
}

// readJSON reads one object; kind is used when it does not say its own, as in lists.
func readJSON(data []byte, kind schema.GroupVersionKind) (*Object, error) {
	var t metav1.TypeMeta
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	if t.Kind != "" {
		kind = t.GroupVersionKind()
	}
	m := newMessage(kind)
	if m == nil {
		return New(kind, data)
	}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("read %s: %w", kind.Kind, err)
	}
	return Of(kind, m)
}

// ReadList reads a list in the form that contentType says.
func ReadList(contentType string, data []byte) (*List, error) {
	if IsProtoType(contentType) {
		return readProtoList(data)
	}
	var in struct {
		metav1.TypeMeta
		metav1.ListMeta `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	l := &List{Kind: itemKind(in.GroupVersionKind()), Continue: in.Continue}
	var err error
	if l.Version, err = ParseVersion(in.ResourceVersion); err != nil {
		return nil, err
	}
	for _, item := range in.Items {
		o, err := readJSON(item, l.Kind)
		if err != nil {
			return nil, err
		}
		l.Items = append(l.Items, o)
	}
	return l, nil
}

func itemKind(list schema.GroupVersionKind) schema.GroupVersionKind {
	list.Kind = strings.TrimSuffix(list.Kind, "List")
	return list
}

// readProtoList relies on what all lists of Kubernetes have in common: field 1 is the metadata, field 2 the items.
func readProtoList(data []byte) (*List, error) {
	kind, raw, err := open(data)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(kind.Kind, "List") {
		return nil, fmt.Errorf("answer is a %s and not a list", kind.Kind)
	}
	l := &List{Kind: itemKind(kind)}
	_, err = rewrite(raw, func(number protowire.Number, value []byte) ([]byte, bool, error) {
		switch number {
		case 1:
			var m metav1.ListMeta
			if err := m.Unmarshal(value); err != nil {
				return nil, false, fmt.Errorf("read list: %w", err)
			}
			l.Continue = m.Continue
			v, err := ParseVersion(m.ResourceVersion)
			l.Version = v
			return nil, false, err
		case 2:
			o, err := New(l.Kind, bytes.Clone(value))
			l.Items = append(l.Items, o)
			return nil, false, err
		}
		return nil, false, nil
	})
	return l, err
}

// Event is one event of a watch. Object is nil for errors; a bookmark's has only a version.
type Event struct {
	Type   watch.EventType
	Object *Object
	// InitialEnd marks the bookmark behind the objects that were there when the watch began.
	InitialEnd bool
}

// EventReader reads the events of one watch.
type EventReader struct {
	proto bool
	in    io.Reader
	json  *json.Decoder
}

// NewEventReader reads in the form that contentType says.
func NewEventReader(contentType string, in io.Reader) *EventReader {
	return &EventReader{proto: IsProtoType(contentType), in: in, json: json.NewDecoder(in)}
}

// Next waits for an event. An error event of the server is returned as the error it describes.
func (r *EventReader) Next() (Event, error) {
	var e metav1.WatchEvent
	if err := r.next(&e); err != nil {
		return Event{}, err
	}
	contentType := MediaJSON
	if r.proto {
		contentType = MediaProto
	}
	if watch.EventType(e.Type) == watch.Error {
		return Event{}, readStatus(contentType, e.Object.Raw)
	}
	o, err := Read(contentType, e.Object.Raw)
	if err != nil {
		return Event{}, err
	}
	event := Event{Type: watch.EventType(e.Type), Object: o}
	if event.Type == watch.Bookmark {
		m, err := o.Meta()
		if err != nil {
			return Event{}, err
		}
		event.InitialEnd = m.Annotations[metav1.InitialEventsAnnotationKey] == "true"
	}
	return event, nil
}

func (r *EventReader) next(e *metav1.WatchEvent) error {
	if !r.proto {
		return r.json.Decode(e)
	}
	var size [4]byte
	if _, err := io.ReadFull(r.in, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > 2*MaxSize {
		return fmt.Errorf("event of %d bytes is too large", n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r.in, data); err != nil {
		return err
	}
	return e.Unmarshal(data)
}

// readStatus turns a Status into an error.
func readStatus(contentType string, data []byte) error {
	var s metav1.Status
	if IsProtoType(contentType) {
		_, raw, err := open(data)
		if err != nil {
			return err
		}
		if err := s.Unmarshal(raw); err != nil {
			return fmt.Errorf("read status: %w", err)
		}
	} else if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	return &apierrors.StatusError{ErrStatus: s}
}

// ReadError turns an answer that is not a success into an error of the API; code is its HTTP status.
func ReadError(contentType string, data []byte, code int) error {
	err := readStatus(contentType, data)
	if status := apierrors.APIStatus(nil); errors.As(err, &status) && status.Status().Code != 0 {
		return err
	}
	return apierrors.NewGenericServerResponse(code, "", schema.GroupResource{}, "", strings.TrimSpace(string(data[:min(len(data), 200)])), 0, true)
}
