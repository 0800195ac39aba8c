// Package twins puts a thousand devices on one node and drives them, for the bench.
package twins

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/test/lab"
)

// Site is a server with a node on which devices hang.
type Site struct {
	api    dynamic.Interface
	node   *lab.Node
	driver *lab.Program
}

// New prepares a site; both machines run kedge.
func New(server, node *lab.Node) (*Site, error) {
	cfg, err := server.RESTConfig()
	if err != nil {
		return nil, err
	}
	api, err := dynamic.NewForConfig(cfg)
	return &Site{api: api, node: node}, err
}

func object(kind, name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1beta1.Group + "/" + v1beta1.Version, "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec,
	}}
}

// Add makes a model and count devices, each with a sensor that is read and reported once a second and a property that can be set.
func (s *Site) Add(ctx context.Context, count int) error {
	_, err := s.api.Resource(v1beta1.Models()).Namespace("default").Create(ctx, object("DeviceModel", "bench", map[string]any{
		"protocol": "virtual", "properties": []any{
			map[string]any{"name": "heat", "type": "FLOAT", "accessMode": "ReadOnly", "minimum": "0", "maximum": "1000"},
			map[string]any{"name": "target", "type": "INT", "accessMode": "ReadWrite"},
		},
	}), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	for i := range count {
		_, err := s.api.Resource(v1beta1.Devices()).Namespace("default").Create(ctx, object("Device", fmt.Sprintf("bench-%04d", i), map[string]any{
			"deviceModelRef": map[string]any{"name": "bench"}, "nodeName": s.node.Name(), "protocol": map[string]any{"protocolName": "virtual"},
			"properties": []any{
				map[string]any{"name": "heat", "collectCycle": int64(1000), "reportCycle": int64(1000), "reportToCloud": true},
				map[string]any{"name": "target", "collectCycle": int64(60000), "reportCycle": int64(60000), "reportToCloud": true},
			},
		}), metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	return nil
}

// Drive starts the driver for simulated devices on the node; Stop ends it.
func (s *Site) Drive() { s.driver = s.node.Beside("mapper", "virtual") }

// Stop ends the driver.
func (s *Site) Stop() { s.driver.Stop() }

// Reporting is an error until every device has reported.
func (s *Site) Reporting(ctx context.Context, count int) error {
	list, err := s.api.Resource(v1beta1.Statuses()).Namespace("default").List(ctx, metav1.ListOptions{})
	if err == nil && len(list.Items) < count {
		err = fmt.Errorf("%d of %d devices have reported", len(list.Items), count)
	}
	return err
}

// Latency wants something of a device and returns the time from the request to the driver. n is another number each time.
func (s *Site) Latency(ctx context.Context, n int) (time.Duration, error) {
	patch, err := json.Marshal([]any{map[string]any{"op": "add", "path": "/spec/properties/1/desired", "value": map[string]any{"value": fmt.Sprint(n)}}})
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if _, err := s.api.Resource(v1beta1.Devices()).Namespace("default").Patch(ctx, "bench-0000", types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		return 0, err
	}
	for end := begin.Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for line := range strings.Lines(s.driver.Output()) {
			if !strings.Contains(line, "device=default/bench-0000 property=target value="+fmt.Sprint(n)+"\n") {
				continue
			}
			stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
			at, err := time.Parse(time.RFC3339Nano, stamp)
			return at.Sub(begin), err
		}
	}
	return 0, fmt.Errorf("the driver was not told %d within a minute", n)
}
