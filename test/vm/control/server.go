package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// outputDelay is how long output of children that outlive the program is still collected.
const outputDelay = time.Second

// Serve answers requests on the stream until it ends.
func Serve(stream io.ReadWriteCloser) error {
	mux := http.NewServeMux()
	mux.HandleFunc(pathPing, servePing)
	mux.HandleFunc("POST "+pathExec, serveExec)
	mux.HandleFunc("PUT "+pathFile, servePut)
	mux.HandleFunc("GET "+pathFile, serveGet)
	mux.HandleFunc("POST "+pathDial, serveDial)
	l := newSingleListener(streamConn{stream})
	srv := &http.Server{Handler: mux, Protocols: protocols(), HTTP2: windows(), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed || s == http.StateHijacked {
			_ = l.Close()
		}
	}}
	err := srv.Serve(l)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// singleListener yields one connection and then waits for Close.
type singleListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newSingleListener(c net.Conn) *singleListener {
	l := &singleListener{conns: make(chan net.Conn, 1), done: make(chan struct{})}
	l.conns <- c
	return l
}

// Accept returns the connection, then net.ErrClosed after Close.
func (l *singleListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (l *singleListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr is a made-up name.
func (l *singleListener) Addr() net.Addr { return streamAddr{} }

// servePing answers with the kernel's boot identity, which changes with every boot.
func servePing(w http.ResponseWriter, _ *http.Request) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, strings.TrimSpace(string(id)))
}

// serveExec runs one program; its end, or the end of the request, ends its whole process group.
func serveExec(w http.ResponseWriter, r *http.Request) {
	var c Command
	if err := json.Unmarshal([]byte(r.URL.Query().Get("command")), &c); err != nil || len(c.Argv) == 0 {
		http.Error(w, fmt.Sprintf("bad command: %v", err), http.StatusBadRequest)
		return
	}
	var mu sync.Mutex
	rc := http.NewResponseController(w)
	frames := func(kind byte) *frameWriter { return &frameWriter{mu: &mu, w: w, flush: rc.Flush, kind: kind} }
	w.WriteHeader(http.StatusOK)
	_ = rc.Flush()
	code, err := execute(r.Context(), c, r.Body, frames(frameStdout), frames(frameStderr))
	if err != nil {
		_, _ = io.WriteString(frames(frameFail), err.Error())
		return
	}
	_, _ = frames(frameExit).Write(binary.BigEndian.AppendUint32(nil, uint32(int32(code))))
}

// execute runs c and returns its exit code, or an error when it could not be started.
func execute(ctx context.Context, c Command, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Dir = c.Dir
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = outputDelay
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		_, _ = io.Copy(in, stdin)
		_ = in.Close()
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return 0, nil
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	default:
		return 0, err
	}
}

// servePut writes a file through a temporary name and makes it durable, so that a power cut right after keeps it.
func servePut(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Query().Get("path")
	mode, err := strconv.ParseUint(r.URL.Query().Get("mode"), 8, 32)
	if err == nil {
		err = putFile(path, os.FileMode(mode), r.Body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func putFile(path string, mode os.FileMode, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".put-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = io.Copy(f, r)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// serveGet sends a file.
func serveGet(w http.ResponseWriter, r *http.Request) {
	f, err := os.Open(r.URL.Query().Get("path"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer func() { _ = f.Close() }()
	_, _ = io.Copy(w, f)
}

// serveDial connects inside the guest and joins the connection to the request and response bodies.
func serveDial(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var d net.Dialer
	conn, err := d.DialContext(r.Context(), q.Get("network"), q.Get("address"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(r.Context(), func() { _ = conn.Close() })
	defer stop()
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	go func() {
		_, _ = io.Copy(conn, r.Body)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	_, _ = io.Copy(flushWriter{w, rc}, conn)
}

// flushWriter sends every write at once.
type flushWriter struct {
	w  io.Writer
	rc *http.ResponseController
}

// Write writes and flushes.
func (f flushWriter) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.rc.Flush()
}
