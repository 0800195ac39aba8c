package dropin

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWritingUntilTheLastWriterCloses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	writer, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if writing, known := Writing(reader); !writing || !known {
		t.Errorf("open for writing: %v, %v", writing, known)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if writing, known := Writing(reader); writing || !known {
		t.Errorf("closed: %v, %v", writing, known)
	}
}

func TestWritingIsUnknownWithoutLeases(t *testing.T) {
	proc, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if writing, known := Writing(proc); writing && !known {
		t.Error("unknown cannot mean being written")
	}
}
