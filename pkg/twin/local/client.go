package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// ErrNoDevice says that the node has no device of that name.
var ErrNoDevice = errors.New("this node has no such device")

// Client asks the node that the socket belongs to.
type Client struct{ http *http.Client }

// NewClient connects nothing yet.
func NewClient(socket string) *Client {
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// List returns the node's devices, sorted.
func (c *Client) List(ctx context.Context) (devices []Device, err error) {
	body, err := c.do(ctx, http.MethodGet, "/v1/devices", nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	return devices, json.NewDecoder(body).Decode(&devices)
}

// Get returns one device, or ErrNoDevice.
func (c *Client) Get(ctx context.Context, namespace, name string) (d Device, err error) {
	body, err := c.do(ctx, http.MethodGet, path(namespace, name), nil)
	if err != nil {
		return d, err
	}
	defer func() { _ = body.Close() }()
	return d, json.NewDecoder(body).Decode(&d)
}

// Set makes a value the desired one. It is on the node's disk when Set returns.
func (c *Client) Set(ctx context.Context, namespace, name, property, value string) error {
	data, err := json.Marshal(wish{&value})
	if err != nil {
		return err
	}
	body, err := c.do(ctx, http.MethodPut, path(namespace, name)+"/properties/"+url.PathEscape(property), data)
	if err != nil {
		return err
	}
	return body.Close()
}

// Watch calls do for each device, or the one that is given as namespace/name, and again whenever it changes, until ctx is done or do fails.
func (c *Client) Watch(ctx context.Context, only string, do func(Device) error) error {
	body, err := c.do(ctx, http.MethodGet, "/v1/watch?device="+url.QueryEscape(only), nil)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	for decoder := json.NewDecoder(body); ; {
		var d Device
		if err := decoder.Decode(&d); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch devices: %w", err)
		}
		if err := do(d); err != nil {
			return err
		}
	}
}

func path(namespace, name string) string {
	return "/v1/devices/" + url.PathEscape(namespace) + "/" + url.PathEscape(name)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://kedge"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask the devices of this node: %w", err)
	}
	if res.StatusCode < 300 {
		return res.Body, nil
	}
	defer func() { _ = res.Body.Close() }()
	var said struct{ Error string }
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&said); err != nil || said.Error == "" {
		said.Error = res.Status
	}
	if res.StatusCode == http.StatusNotFound && said.Error == ErrNoDevice.Error() {
		return nil, ErrNoDevice
	}
	return nil, errors.New(said.Error)
}
