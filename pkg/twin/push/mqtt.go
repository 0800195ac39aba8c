package push

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// publisher publishes to a broker of somebody else.
type publisher struct {
	client   paho.Client
	topic    string
	qos      byte
	retained bool
}

// newMQTT takes an address like tcp://host:1883 or ssl://host:8883, with user and password in it if need be.
func newMQTT(c *v1beta1.PushMQTT) (sender, error) {
	address := c.Address
	if !strings.Contains(address, "://") {
		address = "tcp://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || !slices.Contains([]string{"tcp", "mqtt", "ssl", "tls", "mqtts", "ws", "wss"}, u.Scheme) {
		return nil, fmt.Errorf("address: %q is no address of a broker", c.Address)
	}
	if c.Topic == "" || strings.ContainsAny(c.Topic, "+#") {
		return nil, fmt.Errorf("topic: %q cannot be published to", c.Topic)
	}
	if c.QoS < 0 || c.QoS > 2 {
		return nil, fmt.Errorf("qos: %d is none of 0, 1, 2", c.QoS)
	}
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	o := paho.NewClientOptions().AddBroker(address).SetClientID("kedge-" + hex.EncodeToString(random)).SetConnectTimeout(sendTimeout).
		SetWriteTimeout(sendTimeout).SetAutoReconnect(false).SetCleanSession(true)
	if u.User != nil {
		password, _ := u.User.Password()
		o.SetUsername(u.User.Username()).SetPassword(password)
	}
	return &publisher{paho.NewClient(o), c.Topic, byte(c.QoS), c.Retained}, nil
}

func (p *publisher) send(ctx context.Context, s Sample) error {
	if !p.client.IsConnected() {
		if err := await(ctx, p.client.Connect()); err != nil {
			return err
		}
	}
	data, err := plain(s)
	if err != nil {
		return err
	}
	return await(ctx, p.client.Publish(p.topic, p.qos, p.retained, data))
}

func await(ctx context.Context, t paho.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		return errors.New("the broker does not answer")
	}
}

func (p *publisher) close() { p.client.Disconnect(250) }
