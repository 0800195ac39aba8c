package tunnel_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rancher/remotedialer"

	"github.com/kedge-io/kedge/pkg/tunnel"
)

// rogue is a node with a good certificate that does not keep to the rules.
func (s *site) rogue(node string, header http.Header) (*websocket.Conn, *http.Response, error) {
	if header == nil {
		header = http.Header{}
	}
	if header.Get("X-Kedge-Ping") == "" {
		header.Set("X-Kedge-Ping", "60")
	}
	dialer := websocket.Dialer{TLSClientConfig: s.nodeTLS(node), WriteBufferSize: 8 << 20}
	return dialer.Dial("wss"+strings.TrimPrefix(s.url(), "https")+tunnel.Path, header)
}

// message builds what the multiplexer sends: id, stream, kind and, for data and connect, a number that nobody reads.
func message(stream, kind int64, body string) []byte {
	b := binary.AppendVarint(nil, 1)
	b = binary.AppendVarint(b, stream)
	b = binary.AppendVarint(b, kind)
	if kind == int64(remotedialer.Data) || kind == int64(remotedialer.Connect) {
		b = binary.AppendVarint(b, 0)
	}
	return append(b, body...)
}

func TestRulesOfTheWireAreKept(t *testing.T) {
	for name, frame := range map[string][]byte{
		"connect to the server":   message(7, int64(remotedialer.Connect), "tcp/127.0.0.1:22"),
		"speak for another":       message(7, int64(remotedialer.AddClient), "b/1"),
		"unspeak for another":     message(7, int64(remotedialer.RemoveClient), "b/1"),
		"unknown kind":            message(7, 99, ""),
		"no header":               {},
		"header cut off":          {0xff},
		"frame beyond the limit":  message(7, int64(remotedialer.Data), strings.Repeat("x", 100<<10)),
		"frame far beyond limits": message(7, int64(remotedialer.Data), strings.Repeat("x", 5<<20)),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			ws, _, err := s.rogue("a", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ws.Close()
			s.awaitConnected("a")
			_ = ws.WriteMessage(websocket.BinaryMessage, frame)
			await(t, "session ended", func() bool { return !s.server.Connected("a") })
		})
	}
}

func TestSenderThatDoesNotPauseIsCutOff(t *testing.T) {
	s := newSite(t)
	ws, _, err := s.rogue("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	s.awaitConnected("a")
	go func() { // answer the connect, then flood its stream
		_, m, err := ws.ReadMessage()
		if err != nil {
			return
		}
		_, n := binary.Varint(m)
		stream, _ := binary.Varint(m[n:])
		_ = ws.WriteMessage(websocket.BinaryMessage, message(stream, int64(remotedialer.Data), "\x06"))
		for flood := message(stream, int64(remotedialer.Data), strings.Repeat("x", 32<<10)); ; {
			if ws.WriteMessage(websocket.BinaryMessage, flood) != nil {
				return
			}
		}
	}()
	c := s.dial("a")
	await(t, "session ended", func() bool { return !s.server.Connected("a") })
	if n, err := io.Copy(io.Discard, c); err == nil || n > 20<<20 {
		t.Errorf("%d bytes were kept, %v", n, err)
	}
}

func TestSilentNodeIsAFailedDial(t *testing.T) {
	s := newSite(t)
	ws, _, err := s.rogue("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	s.awaitConnected("a")
	go func() {
		_, m, err := ws.ReadMessage()
		if err != nil {
			return
		}
		_, n := binary.Varint(m)
		stream, _ := binary.Varint(m[n:])
		_ = ws.WriteMessage(websocket.BinaryMessage, message(stream, int64(remotedialer.Data), "?"))
	}()
	if got := s.dialError("a"); !strings.Contains(got, "another version") {
		t.Error(got)
	}
}

func TestSecondConnectionOfANode(t *testing.T) {
	s := newSite(t)
	connect := func(via, connected string) (*websocket.Conn, int) {
		t.Helper()
		ws, resp, err := s.rogue("a", http.Header{"X-Kedge-Via": {via}, "X-Kedge-Connected": {connected}})
		if err != nil {
			return nil, resp.StatusCode
		}
		t.Cleanup(func() { _ = ws.Close() })
		return ws, 0
	}
	first, _ := connect("https://one", "")
	s.awaitConnected("a")
	if ws, code := connect("https://two", "https://one,https://three"); ws != nil || code != http.StatusConflict {
		t.Errorf("a second way to the same server: %d", code)
	}
	second, _ := connect("https://two", "") // the node lost the first one and the server has not noticed
	if second == nil {
		t.Fatal("refused")
	}
	if _, _, err := first.ReadMessage(); err == nil {
		t.Error("the old session goes on")
	}
	third, _ := connect("https://two", "https://two") // by the same way: again a loss that was not noticed
	if third == nil {
		t.Fatal("refused")
	}
	if !s.server.Connected("a") {
		t.Error("not connected")
	}
}

func TestHeadersAreChecked(t *testing.T) {
	s := newSite(t)
	for _, h := range []http.Header{
		{"X-Kedge-Ping": {"0"}}, {"X-Kedge-Ping": {"99999999"}}, {"X-Kedge-Ping": {"soon"}},
		{"X-Kedge-Via": {strings.Repeat("x", 301)}},
	} {
		ws, resp, err := s.rogue("a", h)
		if err == nil {
			_ = ws.Close()
			t.Fatalf("%v was taken", h)
		}
		if resp == nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%v: %v", h, resp)
		}
	}
}

func TestDeadlineClosesTheStream(t *testing.T) {
	s := newSite(t)
	s.join("a", kubelet(t, echo), nil)
	s.awaitConnected("a")
	c := s.dial("a")
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("read past its deadline: %v", err)
	}
}
