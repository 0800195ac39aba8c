// Package bridge serves the clients of a broker that is there already: what they ask of the twins of a node in the topics of the family is
// answered on that broker. Rooms of twin import it.
package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/clients"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/desk"
	"github.com/kedge-io/kedge/pkg/twin/mqtt/message"
)

const (
	// patience bounds how long the other broker may take for one answer.
	patience = 15 * time.Second
	// first and longest are the pauses between attempts to connect.
	first, longest = time.Second, time.Minute
	// maxPayload is the size of the largest message that is looked at, in bytes.
	maxPayload = 256 << 10
	// maxWaiting is how many messages may wait for the other broker to take them.
	maxWaiting = 4096
	// settled is how long a connection must have lasted for the next attempt to come at once.
	settled = 30 * time.Second
)

// Config says which broker it is.
type Config struct {
	Hub *hub.Hub
	// Broker is tcp://HOST:PORT or ssl://HOST:PORT.
	Broker string
	// Credentials is the path of a file with one line, the name and the password with which the bridge logs in; empty for none.
	Credentials string
	// CA is the authority of the broker's certificate, empty for those that the machine trusts; Cert and Key are what the bridge shows, if anything.
	CA, Cert, Key string
	// Tap hears what clients of the broker publish besides; nil for nobody.
	Tap Tap
	// QoS is that of questions and answers: 0, 1 or 2. From 1 on the broker keeps questions while the bridge is away.
	QoS byte
	Log *slog.Logger
}

// Bridge connects while the node has devices, or its tap is to be served.
type Bridge struct {
	cfg  Config
	pace time.Duration // first pause between attempts
	open atomic.Pointer[session]

	mu    sync.Mutex
	known map[[32]byte]bool // sums of the last messages that were dealt with, over connections
	order [][32]byte
	own   echoes
}

// check says what is wrong with the address of a broker.
func check(broker string) error {
	u, err := url.Parse(broker)
	if err != nil || u.Scheme != "tcp" && u.Scheme != "ssl" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("%q is not of the form tcp://HOST:PORT or ssl://HOST:PORT", broker)
	}
	if u.User != nil {
		return errors.New("the name and the password belong into the credentials file")
	}
	return nil
}

// New connects nothing.
func New(cfg Config) (*Bridge, error) {
	if err := check(cfg.Broker); err != nil {
		return nil, fmt.Errorf("existing broker: %w", err)
	}
	if cfg.QoS > 2 {
		return nil, fmt.Errorf("existing broker: QoS %d is none of 0, 1, 2", cfg.QoS)
	}
	return &Bridge{cfg: cfg, pace: first, known: map[[32]byte]bool{}}, nil
}

// lookAgain is how often the bridge looks whether the node has devices.
const lookAgain = 2 * time.Second

// Run serves until ctx is done. Attempts to connect are further and further apart; what is wanted of devices meanwhile is told when the
// broker is back, the last value of each property.
func (b *Bridge) Run(ctx context.Context) error {
	warned := false
	for pause := b.pace; ctx.Err() == nil; {
		if !b.needed() {
			wait(ctx, lookAgain)
			continue
		}
		began := time.Now()
		up, err := b.serve(ctx, func() {
			b.cfg.Log.Info("existing message bus is used", "broker", b.cfg.Broker)
			warned = false
		})
		if err == nil {
			continue
		}
		if !warned {
			b.cfg.Log.Warn("existing message bus cannot be used, trying again", "broker", b.cfg.Broker, "error", err)
			warned = true
		}
		if up && time.Since(began) > settled {
			pause = b.pace
		}
		wait(ctx, pause)
		pause = min(2*pause, longest)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// serve is one connection. It returns nil when ctx is done or the bridge is not needed any more; up says that the broker took the bridge in.
func (b *Bridge) serve(ctx context.Context, connected func()) (up bool, err error) {
	o, err := b.options()
	if err != nil {
		return false, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := &session{bridge: b, waiting: make(chan letter, maxWaiting), lost: make(chan error, 1), stop: stop}
	o.SetConnectionLostHandler(func(_ paho.Client, err error) { s.lose(err) })
	s.desk = desk.New(desk.Config{Hub: b.cfg.Hub, Publish: s.put, Log: b.cfg.Log})
	o.SetDefaultPublishHandler(s.take)
	s.client = paho.NewClient(o)
	defer s.client.Disconnect(250)
	if err := await(s.client.Connect()); err != nil {
		return false, fmt.Errorf("connect: %w", err)
	}
	sent := make(chan error, 1)
	go func() { sent <- s.send(ctx) }()
	if err := b.subscribe(s.client); err != nil {
		stop()
		return true, errors.Join(err, <-sent)
	}
	connected()
	b.open.Store(s)
	defer b.open.Store(nil)
	var following sync.WaitGroup
	if b.cfg.Tap != nil {
		following.Go(func() { s.follow(ctx) })
	}
	s.desk.Announce(ctx, b.needed)
	stop()
	following.Wait()
	err = <-sent
	select {
	case gone := <-s.lost:
		return true, fmt.Errorf("connection: %w", gone)
	default:
		return true, err
	}
}

func await(t paho.Token) error {
	if !t.WaitTimeout(patience) {
		return errors.New("the broker does not answer")
	}
	return t.Error()
}

// filters are the questions to this node in both forms.
func (b *Bridge) filters() map[string]byte {
	out := map[string]byte{"$hw/events/node/" + b.cfg.Hub.Node() + "/" + message.MembershipGet: b.cfg.QoS}
	for _, verb := range []string{message.TwinUpdate, message.TwinGet, message.StateUpdate} {
		out["$hw/events/device/+/"+verb] = b.cfg.QoS
		out["$hw/events/device/+/+/"+verb] = b.cfg.QoS
	}
	return out
}

func (b *Bridge) subscribe(client paho.Client) error {
	token := client.SubscribeMultiple(b.filters(), nil)
	if err := await(token); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	for filter, code := range token.(*paho.SubscribeToken).Result() {
		if code > 2 {
			return fmt.Errorf("subscribe: the broker refuses %s", filter)
		}
	}
	return nil
}

// options are those of one connection; files are read again for each. The broker knows the session by the name of the node.
func (b *Bridge) options() (*paho.ClientOptions, error) {
	o := paho.NewClientOptions().AddBroker(b.cfg.Broker).SetClientID("kedge-" + b.cfg.Hub.Node()).SetCleanSession(b.cfg.QoS == 0).
		SetConnectTimeout(patience).SetWriteTimeout(patience).SetAutoReconnect(false).SetConnectRetry(false).SetKeepAlive(30 * time.Second).
		SetOrderMatters(true).SetProtocolVersion(4).SetAutoAckDisabled(true)
	if b.cfg.Credentials != "" {
		name, password, err := clients.Login(b.cfg.Credentials)
		if err != nil {
			return nil, err
		}
		o.SetUsername(name).SetPassword(password)
	}
	if !strings.HasPrefix(b.cfg.Broker, "ssl://") {
		return o, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if b.cfg.CA != "" {
		text, err := os.ReadFile(b.cfg.CA)
		if err != nil {
			return nil, fmt.Errorf("read authority of the existing broker: %w", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read authority of the existing broker: %s holds no certificate", b.cfg.CA)
		}
	}
	if b.cfg.Cert != "" {
		pair, err := tls.LoadX509KeyPair(b.cfg.Cert, b.cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("read certificate for the existing broker: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return o.SetTLSConfig(c), nil
}

// letter is a message on its way to the other broker.
type letter struct {
	topic   string
	payload []byte
}

// session is what one connection knows.
type session struct {
	bridge  *Bridge
	client  paho.Client
	desk    *desk.Desk
	waiting chan letter
	lost    chan error // why the connection ended, if not because it should
	stop    context.CancelFunc
}
