package slim

import (
	"bytes"
	"encoding/binary"
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// maxFrame bounds one event; what is longer is passed on as it is.
const maxFrame = 2 * object.MaxSize

// next splits the first event from what a watch wrote. It returns 0 when the event is not complete yet, and -1 for what is no event.
func next(data []byte, proto bool) int {
	if !proto {
		return bytes.IndexByte(data, '\n') + 1
	}
	if len(data) < 4 {
		return 0
	}
	n := int64(binary.BigEndian.Uint32(data))
	switch {
	case n > maxFrame:
		return -1
	case int64(len(data)) < 4+n:
		return 0
	}
	return 4 + int(n)
}

// slim returns an event without what nodes do not keep, and whether it only says up to where the watch is. What is not understood stays as it is.
func slim(frame []byte, proto bool) (out []byte, progress bool) {
	var e metav1.WatchEvent
	if !proto {
		if err := json.Unmarshal(frame, &e); err != nil || watch.EventType(e.Type) != watch.Bookmark {
			return frame, false
		}
		return frame, !endsInitial(e.Object.Raw)
	}
	if e.Unmarshal(frame[4:]) != nil {
		return frame, false
	}
	if watch.EventType(e.Type) == watch.Bookmark {
		return frame, !endsInitial(e.Object.Raw)
	}
	var err error
	if e.Object.Raw, err = object.WithoutManagedFields(e.Object.Raw); err != nil {
		return frame, false
	}
	data, err := e.Marshal()
	if err != nil {
		return frame, false
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data))), data...), false
}

// endsInitial says whether a bookmark ends a list that came as a watch, and is waited for.
func endsInitial(raw []byte) bool {
	return bytes.Contains(raw, []byte(metav1.InitialEventsAnnotationKey))
}
