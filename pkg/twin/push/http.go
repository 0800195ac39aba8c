package push

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
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// numeric says whether values of the type are numbers.
func numeric(kind string) bool {
	switch strings.ToUpper(kind) {
	case v1beta1.TypeInt, v1beta1.TypeFloat, v1beta1.TypeDouble:
		return true
	}
	return false
}

// post sends a body to a URL.
type post struct {
	url     string
	header  http.Header
	client  *http.Client
	payload func(Sample) ([]byte, error)
}

func newPost(raw, contentType string, payload func(Sample) ([]byte, error)) (*post, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https"}, u.Scheme) {
		return nil, fmt.Errorf("%q is no address of a web server", raw)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, Proxy: http.ProxyFromEnvironment}
	return &post{raw, http.Header{"Content-Type": {contentType}}, &http.Client{Timeout: sendTimeout, Transport: transport}, payload}, nil
}

func (p *post) send(ctx context.Context, s Sample) error {
	body, err := p.payload(s)
	if err != nil || body == nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header = p.header.Clone()
	res, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("the server answers %s", res.Status)
	}
	return nil
}

func (p *post) close() { p.client.CloseIdleConnections() }

// plain is a value as JSON, for HTTP and MQTT.
func plain(s Sample) ([]byte, error) {
	return json.Marshal(map[string]any{
		"deviceName": s.Device, "namespace": s.Namespace, "propertyName": s.Property, "type": strings.ToLower(s.Type), "value": s.Value,
		"timestamp": s.Time.UnixMilli(),
	})
}

// newHTTP posts to hostName:port/requestPath; hostName may begin with a scheme, http:// when it does not.
func newHTTP(c *v1beta1.PushHTTP) (sender, error) {
	if c.HostName == "" {
		return nil, errors.New("hostName: missing")
	}
	host := c.HostName
	if !strings.Contains(host, "://") {
		host = "http://" + host
	}
	u, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("hostName: %w", err)
	}
	if c.Port < 0 || c.Port > 65535 {
		return nil, fmt.Errorf("port: %d is not from 1 to 65535", c.Port)
	}
	if c.Port > 0 {
		u.Host = net.JoinHostPort(u.Hostname(), strconv.FormatInt(c.Port, 10))
	}
	if c.RequestPath != "" {
		u.Path = "/" + strings.TrimPrefix(c.RequestPath, "/")
	}
	p, err := newPost(u.String(), "application/json", plain)
	if err != nil {
		return nil, fmt.Errorf("hostName: %w", err)
	}
	if c.Timeout > 0 {
		p.client.Timeout = min(time.Duration(c.Timeout)*time.Millisecond, sendTimeout)
	}
	return p, nil
}

// newOTEL posts gauges in the JSON form of OTLP 1.x; a URL without a path gets the one of the standard.
func newOTEL(c *v1beta1.PushOTEL) (sender, error) {
	u, err := url.Parse(c.EndpointURL)
	if err != nil {
		return nil, fmt.Errorf("endpointURL: %w", err)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/metrics"
	}
	p, err := newPost(u.String(), "application/json", gauge)
	if err != nil {
		return nil, fmt.Errorf("endpointURL: %w", err)
	}
	return p, nil
}

// gauge is a value in the form of OTLP. What is no number cannot be one.
func gauge(s Sample) ([]byte, error) {
	point := map[string]any{"timeUnixNano": strconv.FormatInt(s.Time.UnixNano(), 10)}
	switch f, err := strconv.ParseFloat(s.Value, 64); {
	case s.Value == "true", s.Value == "false":
		point["asInt"] = map[string]string{"true": "1", "false": "0"}[s.Value]
	case err == nil && numeric(s.Type):
		point["asDouble"] = f
	default:
		return nil, nil
	}
	attribute := func(k, v string) map[string]any {
		return map[string]any{"key": k, "value": map[string]any{"stringValue": v}}
	}
	return json.Marshal(map[string]any{"resourceMetrics": []any{map[string]any{
		"resource": map[string]any{"attributes": []any{attribute("device.namespace", s.Namespace), attribute("device.name", s.Device)}},
		"scopeMetrics": []any{map[string]any{
			"scope":   map[string]any{"name": "kedge"},
			"metrics": []any{map[string]any{"name": s.Property, "gauge": map[string]any{"dataPoints": []any{point}}}},
		}},
	}}})
}

// newInflux writes points in line protocol with InfluxDB's API v2. The token is not in the specification.
func newInflux(c *v1beta1.PushInfluxdb2, token string) (sender, error) {
	if c.Client == nil || c.Client.URL == "" || c.Client.Bucket == "" {
		return nil, errors.New("influxdb2ClientConfig: url or bucket is missing")
	}
	u, err := url.Parse(c.Client.URL)
	if err != nil {
		return nil, fmt.Errorf("influxdb2ClientConfig.url: %w", err)
	}
	u = u.JoinPath("/api/v2/write")
	u.RawQuery = url.Values{"org": {c.Client.Org}, "bucket": {c.Client.Bucket}, "precision": {"ms"}}.Encode()
	data := v1beta1.InfluxData{}
	if c.Data != nil {
		data = *c.Data
	}
	p, err := newPost(u.String(), "text/plain; charset=utf-8", func(s Sample) ([]byte, error) { return []byte(point(data, s)), nil })
	if err != nil {
		return nil, fmt.Errorf("influxdb2ClientConfig.url: %w", err)
	}
	if token != "" {
		p.header.Set("Authorization", "Token "+token)
	}
	return p, nil
}

// point is one line of the line protocol.
func point(d v1beta1.InfluxData, s Sample) string {
	escape := strings.NewReplacer(",", `\,`, " ", `\ `, "=", `\=`, "\n", `\n`).Replace
	measurement, field := d.Measurement, d.FieldKey
	if measurement == "" {
		measurement = s.Device
	}
	if field == "" {
		field = s.Property
	}
	tags := map[string]string{"device": s.Device, "namespace": s.Namespace}
	for k, v := range d.Tag {
		tags[k] = v
	}
	var keys []string
	for k, v := range tags {
		if k != "" && v != "" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var b strings.Builder
	b.WriteString(strings.NewReplacer(",", `\,`, " ", `\ `, "\n", `\n`).Replace(measurement))
	for _, k := range keys {
		b.WriteString("," + escape(k) + "=" + escape(tags[k]))
	}
	value := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s.Value) + `"`
	if _, err := strconv.ParseFloat(s.Value, 64); err == nil && numeric(s.Type) || s.Value == "true" || s.Value == "false" {
		value = s.Value
	}
	fmt.Fprintf(&b, " %s=%s %d", escape(field), value, s.Time.UnixMilli())
	return b.String()
}
