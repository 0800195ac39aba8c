// Package push sends values of devices where their specification says, besides the API: to an HTTP server, a broker, a collector of
// OpenTelemetry, InfluxDB, redis or MySQL. Each destination has a short queue of its own; when it does not keep up, the oldest values go. Rooms of twin
// import it.
package push

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

const (
	// queue is how many values wait for one destination.
	queue = 256
	// sendTimeout bounds one attempt when the specification does not.
	sendTimeout = 10 * time.Second
	// complainEvery is how often a destination that fails is said to.
	complainEvery = 10 * time.Minute
)

// Sample is one value of one property.
type Sample struct {
	Namespace, Device, Property string
	// Type is that of the model.
	Type  string
	Value string
	Time  time.Time
}

// sender is one destination.
type sender interface {
	send(ctx context.Context, s Sample) error
	close()
}

// Pusher sends the values of one property to all its destinations.
type Pusher struct {
	lines []*line
	wg    sync.WaitGroup
}

// line is the way to one destination.
type line struct {
	name   string
	sender sender
	log    *slog.Logger
	values chan Sample
	said   time.Time
}

// Secrets are what is in no specification: Token is for InfluxDB, Password for redis and MySQL.
type Secrets struct{ Token, Password string }

// New checks the specification and starts what it names; it connects when the first value is sent. Close ends it.
func New(p *v1beta1.PushMethod, secrets Secrets, log *slog.Logger) (*Pusher, error) {
	out := &Pusher{}
	senders, err := sendersOf(p, secrets)
	if err != nil {
		return nil, err
	}
	for name, s := range senders {
		l := &line{name: name, sender: s, log: log, values: make(chan Sample, queue)}
		out.lines = append(out.lines, l)
		out.wg.Go(l.run)
	}
	return out, nil
}

func sendersOf(p *v1beta1.PushMethod, secrets Secrets) (map[string]sender, error) {
	out := map[string]sender{}
	if p == nil {
		return out, nil
	}
	if p.HTTP != nil {
		s, err := newHTTP(p.HTTP)
		if err != nil {
			return nil, fmt.Errorf("pushMethod.http.%w", err)
		}
		out["http"] = s
	}
	if p.MQTT != nil {
		s, err := newMQTT(p.MQTT)
		if err != nil {
			return nil, fmt.Errorf("pushMethod.mqtt.%w", err)
		}
		out["mqtt"] = s
	}
	if p.OTEL != nil {
		s, err := newOTEL(p.OTEL)
		if err != nil {
			return nil, fmt.Errorf("pushMethod.otel.%w", err)
		}
		out["otel"] = s
	}
	if p.DBMethod == nil {
		return out, nil
	}
	return out, databases(p.DBMethod, secrets, out)
}

// databases adds to out what writes to databases.
func databases(p *v1beta1.PushDatabase, secrets Secrets, out map[string]sender) (err error) {
	if p.Influxdb2 != nil {
		if out["influxdb2"], err = newInflux(p.Influxdb2, secrets.Token); err != nil {
			return fmt.Errorf("pushMethod.dbMethod.influxdb2.%w", err)
		}
	}
	if p.Redis != nil {
		if out["redis"], err = newRedis(p.Redis, secrets.Password); err != nil {
			return fmt.Errorf("pushMethod.dbMethod.redis.%w", err)
		}
	}
	if p.MySQL != nil {
		if out["mysql"], err = newMySQL(p.MySQL, secrets.Password); err != nil {
			return fmt.Errorf("pushMethod.dbMethod.mysql.%w", err)
		}
	}
	if p.Influxdb2 == nil && p.Redis == nil && p.MySQL == nil {
		return fmt.Errorf("pushMethod.dbMethod: of databases this driver knows influxdb2, redis and mysql")
	}
	return nil
}

// Push hands a value over and does not wait.
func (p *Pusher) Push(s Sample) {
	for _, l := range p.lines {
		for handed := false; !handed; {
			select {
			case l.values <- s:
				handed = true
			default:
				select {
				case <-l.values:
				default:
				}
			}
		}
	}
}

// Close sends what waits, as far as that goes quickly, and ends. Push must not be called any more.
func (p *Pusher) Close() {
	for _, l := range p.lines {
		close(l.values)
	}
	p.wg.Wait()
}

func (l *line) run() {
	defer l.sender.close()
	for s := range l.values {
		ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
		err := l.sender.send(ctx, s)
		cancel()
		if err != nil && time.Since(l.said) > complainEvery {
			l.said = time.Now()
			l.log.Warn("value was not pushed", "method", l.name, "device", s.Namespace+"/"+s.Device, "property", s.Property, "error", err)
		}
	}
}
