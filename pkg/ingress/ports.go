package ingress

import (
	"crypto/tls"
	"log/slog"
	"net"
	"strconv"

	"github.com/kedge-io/kedge/pkg/ingress/proxy"
	"github.com/kedge-io/kedge/pkg/ingress/route"
)

// ports are the ports of this machine that are served.
type ports struct {
	log        *slog.Logger
	transports *proxy.Transports
	open       map[int]*proxy.Server
	complained map[int]string
}

func newPorts(log *slog.Logger) *ports {
	return &ports{log: log, transports: proxy.NewTransports(), open: map[int]*proxy.Server{}, complained: map[int]string{}}
}

// apply opens, updates and closes ports so that they are what the tables say.
func (p *ports) apply(tables map[int]*route.Port, fallback *tls.Certificate) {
	for number, server := range p.open {
		if t := tables[number]; t == nil || t.TLS != server.Secure() {
			_ = server.Close() // what does not end in time is cut off
			delete(p.open, number)
			p.log.Info("ingress port closed", "port", number)
		}
	}
	for number, table := range tables {
		if server := p.open[number]; server != nil {
			server.Update(table)
			continue
		}
		listener, err := net.Listen("tcp", ":"+strconv.Itoa(number))
		if err != nil {
			if p.complained[number] != err.Error() {
				p.log.Warn("ingress port cannot be opened, trying again: another program has it", "port", number, "error", err)
			}
			p.complained[number] = err.Error()
			continue
		}
		delete(p.complained, number)
		server := proxy.NewServer(number, table, fallback, p.transports, p.log)
		p.open[number] = server
		p.log.Info("ingress port opened", "port", number, "tls", table.TLS)
		go func() {
			if err := server.Serve(listener); err != nil {
				p.log.Warn("ingress port failed", "port", number, "error", err)
			}
		}()
	}
	if len(tables) == 0 {
		p.transports.Close()
	}
}
