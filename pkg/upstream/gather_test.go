package upstream

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestWhatIsWrittenAtOnceGoesAtOnce(t *testing.T) {
	client, near := connected(t)
	const writes, size = 2000, 20
	go func() {
		defer client.Close()
		for i := range writes {
			_, _ = client.Write(bytes.Repeat([]byte{byte(i)}, size)) // what is missing is found by the reader
		}
	}()
	reads, total, buf := 0, 0, make([]byte, 32<<10)
	for {
		n, err := gather{near}.Read(buf)
		for i, b := range buf[:n] {
			if want := byte((total + i) / size); b != want {
				t.Fatalf("byte %d is %d and not %d", total+i, b, want)
			}
		}
		total += n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		reads++
	}
	if total != writes*size || reads > writes/4 {
		t.Errorf("%d bytes in %d reads", total, reads)
	}
}
