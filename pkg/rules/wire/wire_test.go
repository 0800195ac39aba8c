package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestReadRefusesWhatIsNoMessage(t *testing.T) {
	for _, text := range []string{
		``, `[]`, `{"rule":"a"}`, `{"rule":"a/b/c","messages":[]}`, `{"rule":"a/b","messages":[{"id":""}]}`, `{"rule":"a/b","lost":-1}`,
		`{"rule":"a/b","messages":[{"id":"1\n2"}]}`, `{"rule":"a/b","messages":[{"id":"1","topic":"a\r\nb"}]}`, `{"rule":"a/b","messages":[{"id":"` + strings.Repeat("x", 200) + `"}]}`,
	} {
		if b, err := ReadBatch([]byte(text)); err == nil {
			t.Errorf("%s: %+v", text, b)
		}
	}
	for _, text := range []string{`{"topics":[{"rule":"a/b"}]}`, `{"topics":[{"rule":"","filter":"x"}]}`, `{"services":[{"rule":"a/b"}]}`, `7`} {
		if p, err := ReadPlan([]byte(text)); err == nil {
			t.Errorf("%s: %+v", text, p)
		}
	}
	if _, err := ReadOutcome([]byte(`{"done":3}`), 2); err == nil {
		t.Error("more messages arrived than were sent")
	}
	if _, err := ReadAsk([]byte(`{"method":"POST"}`)); err == nil {
		t.Error("a question without a target")
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{
		`{"rule":"a/b","messages":[{"id":"1","topic":"t","time":1,"body":"eA=="}],"attempts":1,"lost":2}`, `{"topics":[{"rule":"a/b","filter":"a/#"}]}`,
		`{"services":[{"rule":"a/b","targetURL":"http://x"}]}`, `{"method":"POST","targetURL":"http://x","payload":{"a":1}}`, `{"done":1,"error":"x"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := ReadBatch(data); err == nil {
			again, err := json.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			if c, err := ReadBatch(again); err != nil || len(c.Messages) != len(b.Messages) {
				t.Fatalf("%s: %v", again, err)
			}
		}
		if p, err := ReadPlan(data); err == nil {
			again, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if q, err := ReadPlan(again); err != nil || q.Digest() != p.Digest() {
				t.Fatalf("%s: %v", again, err)
			}
		}
		if o, err := ReadOutcome(data, 5); err == nil && (o.Done < 0 || o.Done > 5) {
			t.Fatalf("%+v", o)
		}
		if a, err := ReadAsk(data); err == nil && a.TargetURL == "" {
			t.Fatalf("%+v", a)
		}
	})
}
