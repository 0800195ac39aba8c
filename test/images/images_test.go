package images

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// makeBusybox skips where the machine has no static busybox.
func makeBusybox(t *testing.T) Image {
	t.Helper()
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs Debian's busybox-static: ", err)
	}
	image, err := Known("busybox")
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func TestBusyboxDockerArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "busybox.tar")
	if err := makeBusybox(t).WriteDocker(path); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(BusyboxRef)
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(path, &tag)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil || config.OS != "linux" || len(config.Config.Cmd) != 1 {
		t.Errorf("config is %+v, %v", config, err)
	}
	files := map[string]*tar.Header{}
	reader := tar.NewReader(mutate.Extract(image))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(header.Name, "/")] = header
	}
	for path, link := range map[string]string{"bin/sh": "/bin/busybox", "usr/sbin/httpd": "/bin/busybox", "bin/busybox": "", "etc/passwd": ""} {
		if header := files[path]; header == nil || header.Linkname != link {
			t.Errorf("%s is %+v", path, header)
		}
	}
	if header := files["tmp"]; header == nil || header.Mode&0o1777 != 0o1777 {
		t.Errorf("tmp is %+v", header)
	}
}

func TestSameBytes(t *testing.T) {
	image := makeBusybox(t)
	dir := t.TempDir()
	for _, file := range []string{"a.tar", "b.tar"} {
		if err := image.WriteDocker(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	a, errA := os.ReadFile(filepath.Join(dir, "a.tar"))
	b, errB := os.ReadFile(filepath.Join(dir, "b.tar"))
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("two archives of one image differ, %v, %v", errA, errB)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("files: %v, %v", left, err)
	}
}

func TestOCIArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.tar")
	image := Image{Ref: "kedge.local/one:1", Entries: []Entry{{Path: "a", Mode: 0o644, Data: []byte("a")}}}
	if err := image.WriteOCI(path); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	reader := tar.NewReader(f)
	blobs, index := 0, ""
	for {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(header.Name, "blobs/sha256/") && header.Typeflag == tar.TypeReg {
			blobs++
		}
		if header.Name == "index.json" {
			data, err := io.ReadAll(reader)
			if err != nil {
				t.Fatal(err)
			}
			index = string(data)
		}
	}
	if blobs != 3 || !strings.Contains(index, `"io.containerd.image.name": "kedge.local/one:1"`) {
		t.Errorf("%d blobs, index %s", blobs, index)
	}
}

func TestModes(t *testing.T) {
	data, err := tarOf([]Entry{{Path: "tmp", Mode: fs.ModeDir | 0o777, Sticky: true}, {Path: "su", Mode: fs.ModeSetuid | 0o755}, {Path: "a", Mode: 0o640}})
	if err != nil {
		t.Fatal(err)
	}
	reader := tar.NewReader(bytes.NewReader(data))
	for _, want := range []int64{0o1777, 0o4755, 0o640} {
		header, err := reader.Next()
		if err != nil || header.Mode != want {
			t.Errorf("%+v, %v, want mode %o", header, err, want)
		}
	}
}

func TestUnknown(t *testing.T) {
	if _, err := Known("nginx"); err == nil || !strings.Contains(err.Error(), "use busybox or echo") {
		t.Errorf("error is %v", err)
	}
	if err := (Image{Ref: "no tag"}).WriteDocker(filepath.Join(t.TempDir(), "x.tar")); err == nil {
		t.Error("accepted a bad name")
	}
}
