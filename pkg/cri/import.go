package cri

import (
	"context"
	"fmt"
	"os"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
)

// Labels that the CRI understands: managed images are shown to the kubelet, pinned ones are never collected.
const (
	managedLabel = "io.cri-containerd.image"
	pinnedLabel  = "io.cri-containerd.pinned"
)

// Import brings the images of one archive (docker or OCI layout; plain, gzip or zstd) into the
// store, unpacks them for snapshotter and pins them. It returns their names.
func Import(ctx context.Context, client *containerd.Client, archive, snapshotter string) ([]string, error) {
	file, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	stream, err := compression.DecompressStream(file)
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", archive, err)
	}
	defer stream.Close()
	labels := map[string]string{managedLabel: "managed", pinnedLabel: "pinned"}
	found, err := client.Import(ctx, stream,
		containerd.WithImageLabels(labels),
		containerd.WithSkipMissing(),
		containerd.WithAllPlatforms(false))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", archive, err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s holds no named image: save it with its name and tag", archive)
	}
	names := make([]string, 0, len(found))
	for _, img := range found {
		if err := unpack(ctx, client, img, snapshotter); err != nil {
			return names, fmt.Errorf("unpack %s of %s: %w", img.Name, archive, err)
		}
		names = append(names, img.Name)
	}
	return names, nil
}

// unpack makes the snapshots of img and sets the labels on an image that was there before.
func unpack(ctx context.Context, client *containerd.Client, img images.Image, snapshotter string) error {
	image := containerd.NewImage(client, img)
	ok, err := image.IsUnpacked(ctx, snapshotter)
	if err != nil {
		return err
	}
	if ok {
		return nil
	}
	return image.Unpack(ctx, snapshotter)
}
