package status

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/supervisor"
)

// watchdogChances is how often readiness is asked for in the time that the watchdog waits.
const watchdogChances = 10

// Systemd is the way to the service manager. The zero value is a process that nobody manages: it sends nothing.
// The protocol is sd_notify(3): datagrams of NAME=value lines.
type Systemd struct {
	socket   string
	watchdog time.Duration
}

// TakeSystemd reads the service manager's variables and removes them from the environment, because parts inside kedge would
// announce readiness and ping the watchdog for the whole process. Call it once, early in main.
func TakeSystemd() Systemd {
	s := newSystemd(os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID"), os.Getpid())
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // fails for malformed names only
	}
	return s
}

func newSystemd(socket, watchdogUsec, watchdogPID string, pid int) Systemd {
	s := Systemd{socket: socket}
	usec, err := strconv.ParseInt(watchdogUsec, 10, 64)
	if err == nil && usec > 0 && (watchdogPID == "" || watchdogPID == strconv.Itoa(pid)) {
		s.watchdog = time.Duration(usec) * time.Microsecond
	}
	return s
}

// Ready says that every component is ready.
func (s Systemd) Ready() error { return s.send("READY=1\nSTATUS=every component is ready") }

// Stopping says that kedge has begun to stop.
func (s Systemd) Stopping() error { return s.send("STOPPING=1\nSTATUS=stopping") }

func (s Systemd) send(message string) error {
	if s.socket == "" {
		return nil
	}
	name := s.socket
	if strings.HasPrefix(name, "@") { // abstract socket
		name = "\x00" + name[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(message)); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}

// lately knows when each component was last ready. On a machine that is too busy to answer all checks at once, each answers now and then: to kill
// kedge there would only make it busier.
type lately struct {
	within time.Duration
	at     map[string]time.Time
}

// all says whether there are components, and each that may not fail alone was ready at some time within the period.
func (l *lately) all(components []supervisor.Status, now time.Time) bool {
	ok := len(components) > 0
	for _, c := range components {
		if c.State == supervisor.Ready || c.Optional {
			l.at[c.Name] = now
		}
		if now.Sub(l.at[c.Name]) >= l.within {
			ok = false
		}
	}
	return ok
}

// keepAlive pings the watchdog whenever healthy answers yes, until ctx is done. It asks ten times per interval, so that
// only parts that are not ready for a whole interval make systemd start kedge again, and not one bad moment. A ping that
// cannot be sent is tried again at the next turn.
func (s Systemd) keepAlive(ctx context.Context, healthy func() bool) {
	if s.watchdog == 0 || s.socket == "" {
		return
	}
	tick := time.NewTicker(max(s.watchdog/watchdogChances, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if healthy() {
				_ = s.send("WATCHDOG=1")
			}
		}
	}
}
