package message

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for topic, want := range map[string]string{
		"$hw/events/device/d/twin/update":                              "|d|twin/update",
		"$hw/events/device/ns/d/twin/update":                           "ns|d|twin/update",
		"$hw/events/device/ns/d/twin/get":                              "ns|d|twin/get",
		"$hw/events/device/d/state/update":                             "|d|state/update",
		"$hw/events/node/n/membership/get":                             "||membership/get",
		"$hw/events/device/a/b/c/twin/get":                             "",
		"$hw/events/device//twin/get":                                  "",
		"$hw/events/device/+/twin/get":                                 "",
		"$hw/events/device//d/twin/get":                                "",
		"$hw/events/device/d/twin/update/result":                       "",
		"$hw/events/node//membership/get":                              "",
		"other":                                                        "",
		"$hw/events/device/" + strings.Repeat("x", 2000) + "/twin/get": "",
	} {
		got := ""
		if p, ok := Parse(topic); ok {
			got = p.Namespace + "|" + p.Name + "|" + p.Verb
		}
		if got != want {
			t.Errorf("%s: %q, want %q", topic, got, want)
		}
	}
}

func FuzzTopic(f *testing.F) {
	f.Add("$hw/events/device/ns/d/twin/update")
	f.Add("$hw/events/node/n/membership/get")
	for _, topic := range []string{
		"$hw/events/device/d/twin/get", "$hw/events/device/twin/update/twin/update", "$hw/events/device//twin/update", "$hw/events/device/+/state/update",
		"$hw/events/device/a/b/c/state/update", "$hw/events/node/a/b/membership/get", "$hw/events/device/d/twin/update/result", "$ke/events/device/d/data/update",
	} {
		f.Add(topic)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		p, ok := Parse(topic)
		if !ok {
			return
		}
		for _, answer := range []string{p.Answer(), p.Delta(), p.Document()} {
			if strings.ContainsAny(answer, "+#\x00") || !strings.HasPrefix(answer, "$hw/events/") {
				t.Errorf("%q is answered on %q", topic, answer)
			}
			if _, again := Parse(answer); again {
				t.Errorf("the answer on %q would be a question", answer)
			}
		}
	})
}

func FuzzPayload(f *testing.F) {
	f.Add([]byte(`{"event_id":"e","timestamp":1,"twin":{"a":{"expected":{"value":"1","metadata":{"timestamp":2}},"metadata":{"type":"int"}},"b":null}}`))
	f.Add([]byte(`{"state":"ok"}`))
	for _, payload := range []string{
		``, `null`, `[]`, `{"twin":null}`, `{"twin":{"a":null,"a":{}}}`, `{"event_id":5}`, `{"timestamp":1e400}`, `{"twin":{"":{"actual":{"value":null}}}}`,
		`{"twin":{"a":{"actual_version":{"cloud":-1,"edge":9223372036854775807},"metadata":{"type":"Deleted"}}}}`, "{\"twin\":{\"\xff\":{}}}",
	} {
		f.Add([]byte(payload))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if u, err := ReadUpdate(data); err == nil {
			for _, twin := range u.Twin {
				if twin != nil {
					_, _ = twin.Expected.APIValue("1"), twin.Actual.APIValue("1")
				}
			}
			if len(u.Twin) == 0 || len(u.Twin) > maxProperties {
				t.Errorf("%d twins", len(u.Twin))
			}
		}
		_, _ = ReadState(data)
		_, _ = ReadBase(data)
	})
}
