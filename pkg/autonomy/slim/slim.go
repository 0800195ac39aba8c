// Package slim makes what a server sends to node APIs small: the record of who set which field stays away, because no node keeps it; a quiet watch
// says up to where it is every few minutes and not every one; and all of it is compressed, an event with what came before it in the same
// answer as dictionary, so that one more object of a kind costs little more than what is its own.
// It is an inner room of pkg/autonomy, with both ends; only packages of it import it.
package slim

import (
	"bufio"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"
)

const (
	// header of a request says how many seconds may pass until the watch says where it is, first and then; that of an answer says that it is slim.
	header = "X-Kedge-Slim"
	// encoding is plain deflate, whose blocks end with what they carry.
	encoding = "x-kedge-deflate"
	// maxWait bounds what a node may ask for.
	maxWait = time.Hour
)

// Ask has a request answered in slim form by servers that know it. A watch is to say where it is after the time first, and then once every period.
func Ask(r *http.Request, first, every time.Duration) {
	seconds := func(d time.Duration) string { return strconv.Itoa(int(max(0, min(d, maxWait)).Seconds())) }
	r.Header.Set(header, seconds(first)+" "+seconds(every))
}

// asked reads what Ask wrote.
func asked(r *http.Request) (first, every time.Duration, ok bool) {
	a, b, two := strings.Cut(r.Header.Get(header), " ")
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	if !two || err1 != nil || err2 != nil {
		return 0, 0, false
	}
	first, every = time.Duration(x)*time.Second, time.Duration(y)*time.Second
	return first, every, first >= 0 && first <= maxWait && every >= 0 && every <= maxWait
}

// Open makes the body of an answer what it would be had nobody asked for the slim form.
func Open(resp *http.Response) {
	if resp.Header.Get("Content-Encoding") != encoding {
		return
	}
	resp.Header.Del("Content-Encoding")
	resp.ContentLength = -1
	resp.Body = &opened{body: resp.Body}
}

// opened unpacks what it reads. It takes no memory before there is something to unpack.
type opened struct {
	body     io.ReadCloser
	unpacked io.Reader
}

// Read implements io.Reader.
func (o *opened) Read(p []byte) (int, error) {
	if o.unpacked == nil {
		in := bufio.NewReaderSize(o.body, 512)
		if _, err := in.Peek(1); err != nil {
			return 0, err
		}
		o.unpacked = flate.NewReader(in)
	}
	return o.unpacked.Read(p)
}

// Close implements io.Closer.
func (o *opened) Close() error { return o.body.Close() }
