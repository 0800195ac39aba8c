// Package wire is what servers and nodes say to each other about rules: a plan for each node, messages on their way up, and answers. Rooms
// of rules import it.
package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Limits, in bytes unless said otherwise.
const (
	// MaxBody is the largest body of one message, or of a request or answer of a service.
	MaxBody = 12 << 20
	// MaxMessage is the largest message of a bus, and of a program on a node.
	MaxMessage = 1 << 20
	// MaxBatch is the sum of the messages that travel together, and maxBatchJSON what they take.
	MaxBatch     = 1 << 20
	maxBatchJSON = 4 * MaxBatch
	// MaxMessages is the number of messages that travel together.
	MaxMessages = 200
	// MaxPlan is the largest plan.
	MaxPlan = 4 << 20
	// maxKey is the longest key of a rule, and maxID of a message.
	maxKey = 600
	maxID  = 100
)

// Paths of the server for nodes.
const (
	Prefix       = "/v1-kedge/rules/"
	PathPlan     = Prefix + "plan"
	PathMessages = Prefix + "messages"
	PathCall     = Prefix + "call"
)

// Paths of the node for servers.
const (
	NodePlan    = "/plan"
	NodePublish = "/publish"
	NodeService = "/service/"
)

// Headers.
const (
	// HeaderPlan is the digest of the plan that a node has.
	HeaderPlan = "X-Kedge-Plan"
	// HeaderRule, HeaderNode, HeaderTopic, HeaderID and HeaderTime say to the target of a message where it comes from; time is in
	// milliseconds.
	HeaderRule  = "X-Kedge-Rule"
	HeaderNode  = "X-Kedge-Node"
	HeaderTopic = "X-Kedge-Topic"
	HeaderID    = "X-Kedge-Message-Id"
	HeaderTime  = "X-Kedge-Message-Time"
	// HeaderStatus is the status code of the target, in an answer to a call.
	HeaderStatus = "X-Kedge-Target-Status"
	// HeaderFailed marks answers of the node itself, as opposed to those of its services.
	HeaderFailed = "X-Kedge-Failed"
)

// Plan is what one node has to do.
type Plan struct {
	Topics   []Topic   `json:"topics,omitempty"`
	Services []Service `json:"services,omitempty"`
}

// Topic is a rule that wants messages of the bus.
type Topic struct {
	Rule   string `json:"rule"`
	Filter string `json:"filter"`
}

// Service is a rule that programs ask the servicebus for.
type Service struct {
	Rule      string `json:"rule"`
	TargetURL string `json:"targetURL"`
}

// Empty says that there is nothing to do.
func (p Plan) Empty() bool { return len(p.Topics) == 0 && len(p.Services) == 0 }

// Digest identifies a plan.
func (p Plan) Digest() string {
	data, _ := json.Marshal(p) // of strings only: cannot fail
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// ReadPlan reads a plan.
func ReadPlan(data []byte) (p Plan, err error) {
	if len(data) > MaxPlan {
		return Plan{}, fmt.Errorf("a plan of %d bytes is too large", len(data))
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return Plan{}, fmt.Errorf("read plan: %w", err)
	}
	for _, t := range p.Topics {
		if !isKey(t.Rule) || t.Filter == "" {
			return Plan{}, errors.New("read plan: a topic without rule or filter")
		}
	}
	for _, s := range p.Services {
		if !isKey(s.Rule) || s.TargetURL == "" {
			return Plan{}, errors.New("read plan: a service without rule or targetURL")
		}
	}
	return p, nil
}

func isKey(s string) bool {
	namespace, name, ok := strings.Cut(s, "/")
	return ok && namespace != "" && name != "" && !strings.Contains(name, "/") && len(s) <= maxKey
}

// Message is one message of a node.
type Message struct {
	// ID is the same at each attempt.
	ID    string `json:"id"`
	Topic string `json:"topic,omitempty"`
	// Time is when it was made, in milliseconds.
	Time int64  `json:"time"`
	Body []byte `json:"body"`
}

// Batch are messages of one rule, the oldest first.
type Batch struct {
	Rule     string    `json:"rule"`
	Messages []Message `json:"messages"`
	// Attempts is how often the first was tried in vain.
	Attempts int `json:"attempts,omitempty"`
	// Lost is how many were dropped on the node since it was last said.
	Lost int64 `json:"lost,omitempty"`
}

// ReadBatch reads a batch.
func ReadBatch(data []byte) (b Batch, err error) {
	if len(data) > maxBatchJSON {
		return Batch{}, fmt.Errorf("messages of %d bytes are too large", len(data))
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return Batch{}, fmt.Errorf("read messages: %w", err)
	}
	if !isKey(b.Rule) || len(b.Messages) > MaxMessages || b.Attempts < 0 || b.Lost < 0 {
		return Batch{}, errors.New("read messages: rule, number or counters are wrong")
	}
	for _, m := range b.Messages {
		if !Plain(m.ID) || m.ID == "" || len(m.ID) > maxID || !Plain(m.Topic) || len(m.Body) > MaxMessage {
			return Batch{}, errors.New("read messages: one is malformed")
		}
	}
	return b, nil
}

// Plain says whether text may be the value of a header.
func Plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// Outcome is what became of a batch.
type Outcome struct {
	// Done is how many need not be sent again, from the first on.
	Done int `json:"done"`
	// Error says why the next one was not delivered.
	Error string `json:"error,omitempty"`
}

// ReadOutcome reads the outcome of a batch of count messages.
func ReadOutcome(data []byte, count int) (o Outcome, err error) {
	if err := json.Unmarshal(data, &o); err != nil {
		return Outcome{}, fmt.Errorf("read outcome: %w", err)
	}
	if o.Done < 0 || o.Done > count {
		return Outcome{}, fmt.Errorf("read outcome: %d of %d messages", o.Done, count)
	}
	return o, nil
}

// Ask is what a program on a node asks the servicebus; the whole of it goes to the target.
type Ask struct {
	Method    string          `json:"method"`
	TargetURL string          `json:"targetURL"`
	Payload   json.RawMessage `json:"payload,omitempty"`
}

// Reply is what the servicebus answers.
type Reply struct {
	Code int    `json:"code"`
	Msg  string `json:"msg"`
	Body string `json:"body"`
}

// ReadAsk reads a question to the servicebus.
func ReadAsk(data []byte) (a Ask, err error) {
	if err := json.Unmarshal(data, &a); err != nil {
		return Ask{}, fmt.Errorf("invalid params: %w", err)
	}
	if a.TargetURL == "" {
		return Ask{}, errors.New("invalid params: targetURL is missing")
	}
	return a, nil
}
