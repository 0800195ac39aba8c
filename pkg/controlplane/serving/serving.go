// Package serving serves the API server's port with TLS sessions that can be taken up, for which its own server has no seam. Certificates,
// authorities, ciphers and HTTP/2 are as the API server would have them, and it starts and stops when that does. Only controlplane imports it.
package serving

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/klog/v2"

	"github.com/kedge-io/kedge/pkg/resume"
)

// Times and sizes are those of k8s.io/apiserver/pkg/server.
const (
	keepAlive         = 3 * time.Minute
	idleTimeout       = 90 * time.Second
	headerTimeout     = 32 * time.Second
	maxHeader         = 1 << 20
	http2Buffer       = 256 << 10
	http2StreamsUnset = 100
)

// Take has the port of an API server that is not running yet served by this package instead. stop bounds how long open connections hold its stop;
// handover, if not empty, is the file by which sessions outlive a restart. The API server keeps a listener that takes no connections, and by which
// it begins and ends to serve.
func Take(info *genericapiserver.SecureServingInfo, handler http.Handler, stop time.Duration, handover string) error {
	if info == nil || info.Listener == nil {
		return errors.New("the API server has no port")
	}
	s := &server{port: info.Listener, patience: stop, sessions: &resume.Store{}, handover: handover, stopped: make(chan struct{})}
	base, err := s.settings(info)
	if err != nil {
		return err
	}
	if handover != "" {
		if err := s.sessions.Load(handover); err != nil {
			klog.InfoS("Nodes that return make full handshakes", "reason", err)
		}
	}
	s.http = &http.Server{
		Addr: info.Listener.Addr().String(), Handler: handler, MaxHeaderBytes: maxHeader, TLSConfig: base, IdleTimeout: idleTimeout,
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          log.New(quiet{os.Stderr}, "", 0),
	}
	if !info.DisableHTTP2 {
		streams := http2StreamsUnset
		if info.HTTP2MaxStreamsPerConnection > 0 {
			streams = info.HTTP2MaxStreamsPerConnection
		}
		if err := http2.ConfigureServer(s.http, &http2.Server{
			IdleTimeout: idleTimeout, MaxConcurrentStreams: uint32(streams), MaxReadFrameSize: http2Buffer,
			MaxUploadBufferPerStream: http2Buffer, MaxUploadBufferPerConnection: http2Buffer * int32(streams),
		}); err != nil {
			return fmt.Errorf("configure HTTP/2: %w", err)
		}
	}
	info.Listener = s
	return nil
}

// server is the port, and to the API server a listener.
type server struct {
	port     net.Listener
	patience time.Duration
	http     *http.Server
	certs    *dynamiccertificates.DynamicServingCertificateController
	sessions *resume.Store
	handover string
	begin    sync.Once
	end      sync.Once
	stopped  chan struct{}
}

// settings are those of the API server, with certificates and authorities as they are at each connection.
func (s *server) settings(info *genericapiserver.SecureServingInfo) (*tls.Config, error) {
	base := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, CipherSuites: info.CipherSuites, CurvePreferences: info.CurvePreferences}
	if info.DisableHTTP2 {
		base.NextProtos = []string{"http/1.1"}
	}
	if info.MinTLSVersion > 0 {
		base.MinVersion = info.MinTLSVersion
	}
	if info.ClientCA != nil {
		base.ClientAuth = tls.RequestClientCert // who it is, and whether that is believed, is decided for each request
	}
	s.certs = dynamiccertificates.NewDynamicServingCertificateController(base.Clone(), info.ClientCA, info.Cert, info.SNICerts, nil)
	if info.ClientCA != nil {
		info.ClientCA.AddListener(s.certs)
	}
	if info.Cert != nil {
		info.Cert.AddListener(s.certs)
	}
	for _, sni := range info.SNICerts {
		sni.AddListener(s.certs)
	}
	if err := s.certs.RunOnce(); err != nil {
		return nil, fmt.Errorf("load serving certificates: %w", err)
	}
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		settings, err := s.certs.GetConfigForClient(hello)
		if err == nil {
			s.sessions.Attach(settings)
		}
		return settings, err
	}
	return base, nil
}

// Accept implements net.Listener: at its first call the port is served. It returns when that has ended, with an error.
func (s *server) Accept() (net.Conn, error) {
	s.begin.Do(func() {
		go s.certs.Run(1, s.stopped)
		go func() {
			_ = s.http.Serve(tls.NewListener(aliveListener{s.port}, s.http.TLSConfig)) // it ends with Close
			s.close()
		}()
	})
	<-s.stopped
	return nil, net.ErrClosed
}

// Close implements net.Listener: the port is not served any more. Requests have a moment to end.
func (s *server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.patience)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // as without this package: what is open ends with the process
	}
	s.close()
	return err
}

// handOver keeps the sessions for the next start.
func (s *server) handOver() {
	if s.handover == "" {
		return
	}
	if err := s.sessions.Save(s.handover); err != nil {
		klog.InfoS("Nodes that return after the restart will make full handshakes", "reason", err)
	}
}

func (s *server) close() {
	s.end.Do(func() {
		s.handOver()
		close(s.stopped)
	})
}

// Addr implements net.Listener.
func (s *server) Addr() net.Addr { return s.port.Addr() }

// aliveListener has the kernel look after connections whose other end may have gone.
type aliveListener struct{ net.Listener }

// Accept implements net.Listener.
func (l aliveListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetKeepAlive(true) // or it is found out later
		_ = t.SetKeepAlivePeriod(keepAlive)
	}
	return c, nil
}

// quiet leaves out handshakes that failed: strangers make as many as they like.
type quiet struct{ out io.Writer }

// Write implements io.Writer.
func (q quiet) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("http: TLS handshake error")) {
		return len(p), nil
	}
	return q.out.Write(p)
}
