// Command probe is what pods of the policy tests run. It listens on ports 8080 and 8081, TCP and UDP, and answers each connection and
// datagram with one line. On port 9000 it tries connections when it is asked to:
//
//	POST /probe  {"timeout": "1s", "source": 20000, "targets": ["tcp 10.42.0.5:8080", "udp 10.43.1.7:8081"]}
//
// and answers with a list of booleans. All targets are tried at once, target i from port source+i, or from any port when source is 0.
// With the argument "try TARGET" it tries the target again and again from its first moment on, and prints how often and with what success.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	controlPort = ":9000"
	maxBody     = 1 << 20
	// answer is what every port says.
	answer = "here\n"
)

func main() {
	var err error
	if len(os.Args) == 3 && os.Args[1] == "try" {
		try(os.Args[2])
	} else {
		err = serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// try opens connections for three seconds, and then waits to be ended.
func try(target string) {
	tried, reached := 0, 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); tried++ {
		if reach(target, 0, 50*time.Millisecond) {
			reached++
		}
	}
	fmt.Printf("tried %d reached %d\n", tried, reached)
	time.Sleep(time.Hour)
}

func serve() error {
	for _, port := range []string{":8080", ":8081"} {
		l, err := net.Listen("tcp", port)
		if err != nil {
			return err
		}
		go answerConnections(l)
		p, err := net.ListenPacket("udp", port)
		if err != nil {
			return err
		}
		go answerDatagrams(p)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /probe", probe)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	server := &http.Server{Addr: controlPort, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}

func answerConnections(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write([]byte(answer))
		_ = c.Close()
	}
}

func answerDatagrams(p net.PacketConn) {
	buffer := make([]byte, 64)
	for {
		_, from, err := p.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = p.WriteTo([]byte(answer), from)
		}
	}
}

// order is what POST /probe takes.
type order struct {
	Timeout string   `json:"timeout"`
	Source  int      `json:"source"`
	Targets []string `json:"targets"`
}

func probe(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&o); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	timeout, err := time.ParseDuration(o.Timeout)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	results := make([]bool, len(o.Targets))
	var all sync.WaitGroup
	for i, target := range o.Targets {
		source := 0
		if o.Source > 0 {
			source = o.Source + i
		}
		all.Go(func() { results[i] = reach(target, source, timeout) })
	}
	all.Wait()
	_ = json.NewEncoder(w).Encode(results)
}

// reach says whether a target answers.
func reach(target string, source int, timeout time.Duration) bool {
	network, address, _ := strings.Cut(target, " ")
	end := time.Now().Add(timeout)
	dialer := net.Dialer{Deadline: end}
	if source > 0 {
		local, err := localAddr(network, source)
		if err != nil {
			return false
		}
		dialer.LocalAddr = local
	}
	c, err := dialer.Dial(network, address)
	if err != nil {
		return false
	}
	defer c.Close()
	// A datagram may be lost for other reasons than policy: it is sent a few times.
	for attempt := time.Now().Add(timeout / 3); time.Now().Before(end); attempt = attempt.Add(timeout / 3) {
		if network == "udp" {
			if _, err := c.Write([]byte("?")); err != nil {
				return false
			}
		} else {
			attempt = end
		}
		_ = c.SetReadDeadline(attempt)
		buffer := make([]byte, len(answer))
		if n, err := c.Read(buffer); err == nil && string(buffer[:n]) == answer {
			return true
		}
	}
	return false
}

func localAddr(network string, port int) (net.Addr, error) {
	address := ":" + strconv.Itoa(port)
	if network == "udp" {
		return net.ResolveUDPAddr(network, address)
	}
	return net.ResolveTCPAddr(network, address)
}
