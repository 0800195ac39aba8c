package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"github.com/kedge-io/kedge/pkg/rules/wire"
	"github.com/kedge-io/kedge/pkg/socket"
)

// Limits of the socket.
const (
	maxServers     = 64
	headerTimeout  = 10 * time.Second
	serviceTimeout = time.Minute
	stopTime       = 3 * time.Second
)

// listen opens the socket for servers; only root, and so only the tunnel, may connect.
func (e *Edge) listen() (net.Listener, error) {
	l, err := socket.Listen(e.cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("open socket for rules: %w", err)
	}
	return netutil.LimitListener(l, maxServers), nil
}

// serve answers until ctx is done.
func serve(ctx context.Context, s *http.Server, l net.Listener) error {
	s.ReadHeaderTimeout, s.IdleTimeout, s.MaxHeaderBytes = headerTimeout, time.Minute, 64<<10
	s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		if s.Shutdown(grace) != nil {
			_ = s.Close()
		}
	})
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (e *Edge) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT "+wire.NodePlan, e.takePlan)
	mux.HandleFunc("POST "+wire.NodePublish, e.publish)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.hear()
		if strings.HasPrefix(r.URL.Path, wire.NodeService) { // a mux would clean its path
			e.service(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func fail(w http.ResponseWriter, code int, err error) {
	w.Header().Set(wire.HeaderFailed, "1")
	http.Error(w, err.Error(), code)
}

func (e *Edge) takePlan(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxPlan))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	p, err := wire.ReadPlan(data)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	if err := e.setPlan(p); err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (e *Edge) publish(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxMessage))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	if err := e.cfg.Publish(r.URL.Query().Get("topic"), body); err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// service passes a request on to a program on this node: /service/<port>/<path>. The server vouches for the port.
func (e *Edge) service(w http.ResponseWriter, r *http.Request) {
	text, _, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), wire.NodeService), "/")
	port, err := strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 {
		fail(w, http.StatusBadRequest, fmt.Errorf("%q is no port", text))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), serviceTimeout)
	defer cancel()
	prefix := wire.NodeService + text
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", text)})
			p.Out.URL.Path, p.Out.URL.RawPath = strings.TrimPrefix(p.In.URL.Path, prefix), strings.TrimPrefix(p.In.URL.RawPath, prefix)
			p.Out.Host = ""
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del(wire.HeaderFailed)
			if resp.ContentLength > wire.MaxBody {
				return fmt.Errorf("its answer has more than %d bytes", wire.MaxBody)
			}
			resp.Body = struct {
				io.Reader
				io.Closer
			}{&limited{resp.Body, wire.MaxBody}, resp.Body}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			fail(w, http.StatusBadGateway, fmt.Errorf("the service at port %s of this node: %w", text, err))
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	proxy.ServeHTTP(w, r.WithContext(ctx))
}

// limited is a reader that fails when there is more.
type limited struct {
	from io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.from.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, errors.New("too many bytes")
	}
	return n, err
}
