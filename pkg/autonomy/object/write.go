package object

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// Form is how an answer is written.
type Form struct {
	// Proto is protobuf instead of JSON.
	Proto bool
	// Partial is metadata only.
	Partial bool
}

// ChooseForm picks the first form of an Accept header that can be served for objects of the kind. Tables are not made: clients that ask for them
// take plain objects too.
func ChooseForm(accept string, kind schema.GroupVersionKind) Form {
	for part := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			continue
		}
		partial := strings.HasPrefix(params["as"], "PartialObjectMetadata")
		if params["as"] != "" && !partial {
			continue
		}
		switch {
		case media == MediaProto && (partial || IsProto(kind)):
			return Form{Proto: true, Partial: partial}
		case media == MediaJSON, media == "*/*", media == "application/*":
			return Form{Partial: partial}
		}
	}
	return Form{}
}

// ContentType is the header that goes with the form.
func (f Form) ContentType(watching bool) string {
	media := MediaJSON
	if f.Proto {
		media = MediaProto
	}
	if watching && f.Proto {
		media += ";stream=watch"
	}
	return media
}

// Encode writes one object.
func (f Form) Encode(o *Object) ([]byte, error) {
	if f.Partial {
		m, err := o.Meta()
		if err != nil {
			return nil, err
		}
		p := &metav1.PartialObjectMetadata{ObjectMeta: *m}
		return f.EncodeAny(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"), p)
	}
	if f.Proto {
		return seal(o.Kind, o.Raw)
	}
	if !IsProto(o.Kind) {
		return o.Raw, nil
	}
	decoded, err := o.Decode()
	if err != nil {
		return nil, err
	}
	return json.Marshal(decoded)
}

// EncodeAny writes an object that is of a Go type with protobuf, such as a Status.
func (f Form) EncodeAny(kind schema.GroupVersionKind, obj runtime.Object) ([]byte, error) {
	obj.GetObjectKind().SetGroupVersionKind(kind)
	if !f.Proto {
		return json.Marshal(obj)
	}
	m, ok := obj.(message)
	if !ok {
		return nil, fmt.Errorf("%s has no protobuf form", kind.Kind)
	}
	raw, err := m.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind.Kind, err)
	}
	return seal(kind, raw)
}

// seal puts a message in its envelope.
func seal(kind schema.GroupVersionKind, raw []byte) ([]byte, error) {
	apiVersion, k := kind.ToAPIVersionAndKind()
	u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: k}, Raw: raw}
	data, err := u.Marshal()
	if err != nil {
		return nil, fmt.Errorf("write envelope: %w", err)
	}
	return append([]byte(protoPrefix), data...), nil
}

// EncodeList writes a list of objects.
func (f Form) EncodeList(l *List) ([]byte, error) {
	kind := l.Kind
	kind.Kind += "List"
	if f.Partial {
		kind = metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList")
	}
	meta := metav1.ListMeta{ResourceVersion: FormatVersion(l.Version)}
	if f.Proto {
		return f.protoList(kind, meta, l.Items)
	}
	out := struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}{ListMeta: meta, Items: []json.RawMessage{}}
	out.APIVersion, out.Kind = kind.ToAPIVersionAndKind()
	for _, o := range l.Items {
		item, err := f.Encode(o)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, item)
	}
	return json.Marshal(out)
}

func (f Form) protoList(kind schema.GroupVersionKind, meta metav1.ListMeta, items []*Object) ([]byte, error) {
	head, err := meta.Marshal()
	if err != nil {
		return nil, fmt.Errorf("write list: %w", err)
	}
	raw := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), head)
	for _, o := range items {
		item := o.Raw
		if f.Partial {
			m, err := o.Meta()
			if err != nil {
				return nil, err
			}
			if item, err = (&metav1.PartialObjectMetadata{ObjectMeta: *m}).Marshal(); err != nil {
				return nil, fmt.Errorf("write list: %w", err)
			}
		}
		raw = protowire.AppendBytes(protowire.AppendTag(raw, 2, protowire.BytesType), item)
	}
	return seal(kind, raw)
}

// Bookmark is the object of a bookmark event for watchers of a kind.
func Bookmark(kind schema.GroupVersionKind, version uint64, initialEnd bool) (*Object, error) {
	meta := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{ResourceVersion: FormatVersion(version)}}
	if initialEnd {
		meta.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	if IsProto(kind) {
		raw, err := meta.Marshal() // metadata is field 1 of every kind
		return &Object{Kind: kind, Raw: raw, Version: version}, err
	}
	meta.SetGroupVersionKind(kind)
	raw, err := json.Marshal(&meta)
	return &Object{Kind: kind, Raw: raw, Version: version}, err
}

// WriteEvent writes one event of a watch.
func (f Form) WriteEvent(w io.Writer, kind watch.EventType, o *Object) error {
	data, err := f.Encode(o)
	if err != nil {
		return err
	}
	return f.writeEvent(w, kind, data)
}

// WriteError ends a watch with a Status.
func (f Form) WriteError(w io.Writer, s metav1.Status) error {
	data, err := f.EncodeAny(metav1.Unversioned.WithKind("Status"), &s)
	if err != nil {
		return err
	}
	return f.writeEvent(w, watch.Error, data)
}

func (f Form) writeEvent(w io.Writer, kind watch.EventType, data []byte) error {
	e := metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: data}}
	if !f.Proto {
		return json.NewEncoder(w).Encode(&e)
	}
	raw, err := e.Marshal()
	if err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, len(raw)+4), uint32(len(raw)))
	_, err = w.Write(append(frame, raw...))
	return err
}
