package critest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kedge-io/kedge/test/images"
)

// Where the suite's images come from.
const (
	e2e   = "registry.k8s.io/e2e-test-images/"
	tools = "gcr.io/k8s-staging-cri-tools/"
)

// publication is one image under all the names that the suite has for it.
type publication struct {
	refs  []string
	image images.Image
}

// byDigest is an image that the suite wants by the digest of its public original, which cannot be made here; ours has another.
const byDigest = tools + "test-image-digest:latest"

// catalogue is every image that the suite pulls, made from a busybox image and our program guest.
func catalogue(busybox images.Image, guest []byte) []publication {
	base := withGuest(busybox, guest)
	var all []publication
	add := func(change func(*images.Image), refs ...string) {
		image := base
		// No two images are equal unless they are meant to be.
		image.Entries = append(slices.Clone(base.Entries), images.Entry{Path: "ref", Mode: 0o644, Data: []byte(refs[0])})
		if change != nil {
			change(&image)
		}
		image.Ref = refs[0]
		all = append(all, publication{refs, image})
	}
	user := func(user string) func(*images.Image) { return func(i *images.Image) { i.User = user } }
	runs := func(argv ...string) func(*images.Image) {
		return func(i *images.Image) { i.Entrypoint, i.Cmd = argv, nil }
	}

	add(nil, e2e+"busybox:1.29-2")
	// The suite knows the web server by these words in its command line.
	add(runs("/usr/sbin/nginx", ":80", "master process"), e2e+"nginx:1.14-2")
	add(runs("/usr/sbin/httpd", ":80"), e2e+"httpd:2.4.39-4")
	add(runs("/usr/sbin/nginx", ":12003", "master process"), tools+"hostnet-nginx-"+runtime.GOARCH+":latest")
	add(func(i *images.Image) {
		i.Entries = append(i.Entries, images.Entry{Path: "nnp", Mode: 0o755 | fs.ModeSetuid, Data: guest})
		runs("/nnp")(i)
	}, e2e+"nonewprivs:1.3")
	add(runs("sleep", "infinity"), "registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9")
	for _, one := range []string{"test-image-latest:latest", "test-image-tag:test", "test-image-tag:all", "test-image-1:latest", "test-image-2:latest", "test-image-3:latest"} {
		add(nil, tools+one)
	}
	add(nil, byDigest)
	add(nil, tools+"test-image-tags:1", tools+"test-image-tags:2", tools+"test-image-tags:3")
	add(user("1002"), tools+"test-image-user-uid:latest")
	add(user("www-data"), tools+"test-image-user-username:latest")
	add(user("1003:1004"), tools+"test-image-user-uid-group:latest")
	add(user("www-data:1004"), tools+"test-image-user-username-group:latest")
	add(func(i *images.Image) {
		i.User = "1000"
		i.Entries = appendData(i.Entries, "etc/passwd", "default-user:x:1000:1000::/home:/bin/sh\n")
		i.Entries = appendData(i.Entries, "etc/group", "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
	}, tools+"test-image-predefined-group:latest")
	return all
}

// withGuest puts our program into a busybox image, and makes ls a file of its own.
func withGuest(busybox images.Image, guest []byte) images.Image {
	var entries []images.Entry
	links := []string{"bin/sh", "usr/bin/ipcs", "usr/bin/pgrep", "usr/sbin/nginx", "usr/sbin/httpd"}
	for _, e := range busybox.Entries {
		if !slices.Contains(links, e.Path) && e.Path != "bin/ls" {
			entries = append(entries, e)
		}
	}
	for _, l := range links {
		entries = append(entries, images.Entry{Path: l, Link: "/bin/guest"})
	}
	busybox.Entries = append(entries,
		images.Entry{Path: "bin/guest", Mode: 0o755, Data: guest},
		images.Entry{Path: "bin/ls", Mode: 0o755, Data: []byte("#!/bin/busybox sh\nexec /bin/busybox ls \"$@\"\n")},
		images.Entry{Path: "var/run", Link: "/run"})
	return busybox
}

// appendData adds to a file of the image.
func appendData(entries []images.Entry, path, more string) []images.Entry {
	entries = slices.Clone(entries)
	for i := range entries {
		if entries[i].Path == path {
			entries[i].Data = append(slices.Clone(entries[i].Data), more...)
		}
	}
	return entries
}

// buildGuest compiles the directory guest.
func buildGuest(dir string) ([]byte, error) {
	program := filepath.Join(dir, "guest")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, "./guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build guest: %w\n%s", err, text)
	}
	return os.ReadFile(program)
}

// push puts the images into a registry, where each is found by the path of its name.
func push(all []publication, registry http.Handler) error {
	for _, p := range all {
		image, err := p.image.Build()
		if err != nil {
			return err
		}
		for _, ref := range p.refs {
			if err := pushAs(ref, image, registry); err != nil {
				return fmt.Errorf("push %s: %w", ref, err)
			}
		}
	}
	return nil
}

// pushAs uploads an image's layers and configuration, and last the manifest that names them.
func pushAs(ref string, image v1.Image, registry http.Handler) error {
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil {
		return err
	}
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	base := "/v2/" + tag.RepositoryStr()
	for _, blob := range append(manifest.Layers, manifest.Config) {
		layer, err := image.LayerByDigest(blob.Digest) // the configuration is found too
		if err != nil {
			return err
		}
		content, err := layer.Compressed()
		if err != nil {
			return err
		}
		if err := upload(registry, http.MethodPost, base+"/blobs/uploads/?digest="+blob.Digest.String(), "", content); err != nil {
			return err
		}
	}
	raw, err := image.RawManifest()
	if err != nil {
		return err
	}
	return upload(registry, http.MethodPut, base+"/manifests/"+tag.TagStr(), string(manifest.MediaType), bytes.NewReader(raw))
}

func upload(registry http.Handler, method, path, kind string, content io.Reader) error {
	request := httptest.NewRequest(method, path, content)
	request.Header.Set("Content-Type", kind)
	answer := httptest.NewRecorder()
	registry.ServeHTTP(answer, request)
	if answer.Code != http.StatusCreated {
		return fmt.Errorf("%s %s: %d %s", method, path, answer.Code, answer.Body)
	}
	return nil
}
