package dns

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/acl" // the imports register the plugins that a Corefile may name
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/header"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/local"
	_ "github.com/coredns/coredns/plugin/log"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
)

// engine runs one CoreDNS server and replaces its configuration without closing its sockets.
type engine struct {
	guardName, clusterName string
	instance               *caddy.Instance
	corefile               string
}

// newEngine registers our two plugins with CoreDNS. Its registry is one per process and refuses a name twice, so the
// names carry a random part; nothing of ours is global.
func newEngine(guard *loopGuard, zone *clusterZone, log *slog.Logger) *engine {
	id := rand.Text()[:8]
	e := &engine{guardName: "kedge-guard-" + id, clusterName: "kedge-cluster-" + id}
	caddy.Quiet, dnsserver.Quiet = true, true
	caddy.RegisterPlugin(e.guardName, caddy.Plugin{ServerType: "dns", Action: guard.setup})
	caddy.RegisterPlugin(e.clusterName, caddy.Plugin{ServerType: "dns", Action: zone.setup})
	order := slices.Clone(dnsserver.Directives)
	order = slices.Insert(order, slices.Index(order, "errors"), e.guardName)
	order = slices.Insert(order, slices.Index(order, "kubernetes"), e.clusterName)
	dnsserver.Directives = order
	// It fails never; a later engine takes the place of an earlier one.
	_ = clog.RegisterListener(&logBridge{log: log})
	return e
}

// apply starts the server with the configuration, or moves the running one over to it. After an error the running
// server is unchanged.
func (e *engine) apply(corefile string) (err error) {
	if corefile == e.corefile {
		return nil
	}
	defer func() { // a plugin's setup that panics must not take the node down
		if p := recover(); p != nil {
			err = fmt.Errorf("configuration made a plugin panic: %v", p)
		}
	}()
	input := caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: "dns"}
	var next *caddy.Instance
	if e.instance == nil {
		next, err = caddy.Start(input)
	} else {
		next, err = e.instance.Restart(input)
	}
	if err != nil {
		return err
	}
	e.instance, e.corefile = next, corefile
	return nil
}

// stop ends the server and its plugins. Queries in flight get up to five seconds.
func (e *engine) stop() error {
	if e.instance == nil {
		return nil
	}
	errs := e.instance.ShutdownCallbacks()
	if err := e.instance.Stop(); err != nil {
		errs = append(errs, err)
	}
	e.instance.Wait()
	e.instance = nil
	if len(errs) > 0 {
		return fmt.Errorf("stop dns server: %w", errs[0])
	}
	return nil
}

// addPlugin puts a handler that is made from its successor into the server of c.
func addPlugin(c *caddy.Controller, build func(next plugin.Handler) plugin.Handler) {
	dnsserver.GetConfig(c).AddPlugin(build)
}

// logBridge passes the log lines of CoreDNS plugins on to slog: errors and warnings as warnings, the rest as debug.
type logBridge struct{ log *slog.Logger }

func (b *logBridge) note(plugin, text string) {
	b.log.Debug("coredns", "plugin", pluginName(plugin), "text", text)
}

func (b *logBridge) warn(plugin, text string) {
	b.log.Warn("coredns", "plugin", pluginName(plugin), "text", text)
}

// pluginName takes the name out of CoreDNS's log prefix, such as "plugin/errors: ".
func pluginName(prefix string) string {
	return strings.TrimSuffix(strings.TrimPrefix(prefix, "plugin/"), ": ")
}

// Name identifies the listener to CoreDNS.
func (b *logBridge) Name() string { return "kedge" }

// Debug is part of CoreDNS's listener, as are the methods below.
func (b *logBridge) Debug(plugin string, v ...any) { b.note(plugin, fmt.Sprint(v...)) }

// Debugf is Debug with a format.
func (b *logBridge) Debugf(plugin, format string, v ...any) {
	b.note(plugin, fmt.Sprintf(format, v...))
}

// Info logs at debug level.
func (b *logBridge) Info(plugin string, v ...any) { b.note(plugin, fmt.Sprint(v...)) }

// Infof is Info with a format.
func (b *logBridge) Infof(plugin, format string, v ...any) { b.note(plugin, fmt.Sprintf(format, v...)) }

// Warning logs at warn level.
func (b *logBridge) Warning(plugin string, v ...any) { b.warn(plugin, fmt.Sprint(v...)) }

// Warningf is Warning with a format.
func (b *logBridge) Warningf(plugin, format string, v ...any) {
	b.warn(plugin, fmt.Sprintf(format, v...))
}

// Error logs at warn level: DNS goes on.
func (b *logBridge) Error(plugin string, v ...any) { b.warn(plugin, fmt.Sprint(v...)) }

// Errorf is Error with a format.
func (b *logBridge) Errorf(plugin, format string, v ...any) {
	b.warn(plugin, fmt.Sprintf(format, v...))
}

// Fatal logs at warn level; CoreDNS itself ends the process after it.
func (b *logBridge) Fatal(plugin string, v ...any) { b.warn(plugin, fmt.Sprint(v...)) }

// Fatalf is Fatal with a format.
func (b *logBridge) Fatalf(plugin, format string, v ...any) {
	b.warn(plugin, fmt.Sprintf(format, v...))
}
