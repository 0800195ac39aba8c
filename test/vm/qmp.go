package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// monitor is a client of qemu's machine protocol (https://www.qemu.org/docs/master/interop/qmp-spec.html).
type monitor struct {
	mu   sync.Mutex
	conn net.Conn
	dec  *json.Decoder
}

// newMonitor reads the greeting and enters command mode.
func newMonitor(conn net.Conn) (*monitor, error) {
	m := &monitor{conn: conn, dec: json.NewDecoder(conn)}
	var greeting map[string]any
	if err := m.dec.Decode(&greeting); err != nil {
		return nil, fmt.Errorf("read qemu's greeting: %w", err)
	}
	return m, m.command("qmp_capabilities", nil)
}

// command sends one command and waits for its answer; events in between are dropped.
func (m *monitor) command(name string, args map[string]any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	req := map[string]any{"execute": name}
	if args != nil {
		req["arguments"] = args
	}
	if err := json.NewEncoder(m.conn).Encode(req); err != nil {
		return fmt.Errorf("monitor %s: %w", name, err)
	}
	for {
		var resp struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := m.dec.Decode(&resp); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("monitor %s: %w", name, err)
		}
		if resp.Error != nil {
			return fmt.Errorf("monitor %s: %s", name, resp.Error.Desc)
		}
		if resp.Return != nil {
			return nil
		}
	}
}

// setLink plugs or pulls the cable of a card.
func (m *monitor) setLink(name string, up bool) error {
	return m.command("set_link", map[string]any{"name": name, "up": up})
}
