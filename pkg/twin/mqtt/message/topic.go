// Package message reads and writes topics and payloads of the device topics on the message bus. It is pure. Rooms of twin import it.
package message

import (
	"strings"
)

// What a client asks for.
const (
	TwinUpdate    = "twin/update"
	TwinGet       = "twin/get"
	StateUpdate   = "state/update"
	MembershipGet = "membership/get"
)

const (
	devicePrefix = "$hw/events/device/"
	nodePrefix   = "$hw/events/node/"
	// maxTopic is the most bytes that a topic may have.
	maxTopic = 1024
)

// Topic is a topic that a client may publish to, taken apart.
type Topic struct {
	// ID is namespace/name or only the name, as the client wrote it; the node's name for MembershipGet.
	ID string
	// Namespace is empty in the older form.
	Namespace, Name string
	// Verb is one of the constants above.
	Verb string
}

// Parse reads a topic; it returns false for one that asks nothing of the node.
func Parse(topic string) (Topic, bool) {
	if len(topic) > maxTopic || strings.ContainsAny(topic, "+#\x00") {
		return Topic{}, false
	}
	if rest, ok := strings.CutPrefix(topic, nodePrefix); ok {
		node, ok := strings.CutSuffix(rest, "/"+MembershipGet)
		return Topic{ID: node, Verb: MembershipGet}, ok && node != "" && !strings.Contains(node, "/")
	}
	rest, ok := strings.CutPrefix(topic, devicePrefix)
	if !ok {
		return Topic{}, false
	}
	for _, verb := range []string{TwinUpdate, TwinGet, StateUpdate} {
		id, ok := strings.CutSuffix(rest, "/"+verb)
		if !ok {
			continue
		}
		levels := strings.Split(id, "/")
		t := Topic{ID: id, Verb: verb, Name: levels[len(levels)-1]}
		if len(levels) == 2 {
			t.Namespace = levels[0]
		}
		return t, len(levels) <= 2 && t.Name != "" && (len(levels) == 1 || t.Namespace != "")
	}
	return Topic{}, false
}

// Answer is the topic of the result.
func (t Topic) Answer() string { return t.base() + t.Verb + "/result" }

// Delta is the topic that tells what is wanted and not yet so.
func (t Topic) Delta() string { return t.base() + "twin/update/delta" }

// Document is the topic that tells what was and is.
func (t Topic) Document() string { return t.base() + "twin/update/document" }

func (t Topic) base() string {
	if t.Verb == MembershipGet {
		return nodePrefix + t.ID + "/"
	}
	return devicePrefix + t.ID + "/"
}

// OfDevice is a topic of a device in the form of id.
func OfDevice(id string) Topic { return Topic{ID: id, Verb: TwinUpdate} }

// MembershipUpdated tells of devices that came and went.
func MembershipUpdated(node string) string { return nodePrefix + node + "/membership/updated" }

// DeviceOf returns the levels behind the prefix of a topic or filter about devices, and whether it is one: those of the node's own family,
// and those that drivers and applications use among themselves.
func DeviceOf(topic string) ([]string, bool) {
	for _, prefix := range []string{devicePrefix, "$ke/events/device/"} {
		if rest, ok := strings.CutPrefix(topic, prefix); ok {
			return strings.Split(rest, "/"), true
		}
	}
	return nil, false
}

// OfNode says whether a topic or filter is about one node's membership.
func OfNode(topic, node string) bool {
	rest, ok := strings.CutPrefix(topic, nodePrefix+node+"/membership/")
	return ok && rest != ""
}
