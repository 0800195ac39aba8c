package mapper

import (
	"os"
	"time"

	"github.com/kedge-io/kedge/pkg/twin/mapper/driver"
	"github.com/kedge-io/kedge/pkg/twin/push"
)

// Environment variables that hold what is in no specification: the token for InfluxDB, and the password for redis and MySQL.
const (
	influxToken = "TOKEN"
	password    = "PASSWORD"
)

// startPush prepares what the specification says. A method that is wrong is said and left out; the rest of the device works.
func (w *worker) startPush() {
	for _, p := range w.cfg.Properties {
		if p.Push == nil {
			continue
		}
		pusher, err := push.New(p.Push, push.Secrets{Token: os.Getenv(influxToken), Password: os.Getenv(password)}, w.mapper.cfg.Log)
		if err != nil {
			w.mapper.cfg.Log.Warn("values are not pushed", "device", w.name(), "property", p.Name, "error", err)
			continue
		}
		w.push[p.Name] = pusher
	}
}

func (w *worker) stopPush() {
	for _, p := range w.push {
		p.Close()
	}
}

// pushValue pushes what was read once a report cycle, changed or not.
func (w *worker) pushValue(p driver.Property, text string, now time.Time) {
	pusher := w.push[p.Name]
	if pusher == nil || now.Sub(w.pushed[p.Name]) < p.Report {
		return
	}
	w.pushed[p.Name] = now
	pusher.Push(push.Sample{Namespace: w.cfg.Namespace, Device: w.cfg.Name, Property: p.Name, Type: p.Model.Type, Value: text, Time: now})
}
