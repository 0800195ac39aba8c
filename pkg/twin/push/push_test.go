package push

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

func TestPush(t *testing.T) {
	got := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.URL.String() + " " + r.Header.Get("Authorization") + " " + string(body)
	}))
	defer server.Close()
	s := Sample{Namespace: "n", Device: "d 1", Property: "heat", Type: "FLOAT", Value: "21.5", Time: time.UnixMilli(1700000000123)}
	for name, tc := range map[string]struct {
		method *v1beta1.PushMethod
		want   string
	}{
		"http": {&v1beta1.PushMethod{HTTP: &v1beta1.PushHTTP{HostName: server.URL, RequestPath: "in"}},
			`/in  {"deviceName":"d 1","namespace":"n","propertyName":"heat","timestamp":1700000000123,"type":"float","value":"21.5"}`},
		"otel": {&v1beta1.PushMethod{OTEL: &v1beta1.PushOTEL{EndpointURL: server.URL}},
			`/v1/metrics  {"resourceMetrics":[{"resource":{"attributes":[{"key":"device.namespace","value":{"stringValue":"n"}},{"key":"device.name","value":{"stringValue":"d 1"}}]},` +
				`"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"asDouble":21.5,"timeUnixNano":"1700000000123000000"}]},"name":"heat"}],"scope":{"name":"kedge"}}]}]}`},
		"influx": {&v1beta1.PushMethod{DBMethod: &v1beta1.PushDatabase{Influxdb2: &v1beta1.PushInfluxdb2{
			Client: &v1beta1.InfluxClient{URL: server.URL, Org: "o", Bucket: "b"}, Data: &v1beta1.InfluxData{Measurement: "m", Tag: map[string]string{"a": "b c"}}}}},
			`/api/v2/write?bucket=b&org=o&precision=ms Token secret m,a=b\ c,device=d\ 1,namespace=n heat=21.5 1700000000123`},
	} {
		p, err := New(tc.method, Secrets{Token: "secret"}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		p.Push(s)
		p.Close()
		if text := <-got; text != tc.want && text != strings.Replace(tc.want, "Token secret", "", 1) {
			t.Errorf("%s: got  %s\nwant %s", name, text, tc.want)
		}
	}
}

func TestBadMethods(t *testing.T) {
	for want, method := range map[string]*v1beta1.PushMethod{
		"pushMethod.http.hostName: missing":          {HTTP: &v1beta1.PushHTTP{}},
		"pushMethod.http.port: 70000":                {HTTP: &v1beta1.PushHTTP{HostName: "a", Port: 70000}},
		"pushMethod.mqtt.topic":                      {MQTT: &v1beta1.PushMQTT{Address: "a:1", Topic: "a/#"}},
		"pushMethod.mqtt.address":                    {MQTT: &v1beta1.PushMQTT{Address: "ftp://a", Topic: "a"}},
		"pushMethod.otel.endpointURL":                {OTEL: &v1beta1.PushOTEL{EndpointURL: "collector"}},
		"this driver knows influxdb2":                {DBMethod: &v1beta1.PushDatabase{}},
		"dbMethod.redis.redisClientConfig.addr":      {DBMethod: &v1beta1.PushDatabase{Redis: &v1beta1.PushRedis{Client: &v1beta1.RedisClient{Addr: "host"}}}},
		"dbMethod.redis.redisClientConfig.db":        {DBMethod: &v1beta1.PushDatabase{Redis: &v1beta1.PushRedis{Client: &v1beta1.RedisClient{Addr: "host:1", DB: -1}}}},
		"dbMethod.mysql.mysqlClientConfig: is":       {DBMethod: &v1beta1.PushDatabase{MySQL: &v1beta1.PushMySQL{}}},
		"dbMethod.mysql.mysqlClientConfig: database": {DBMethod: &v1beta1.PushDatabase{MySQL: &v1beta1.PushMySQL{Client: &v1beta1.MySQLClient{Addr: "host:1"}}}},
	} {
		if _, err := New(method, Secrets{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestASlowDestinationHoldsNobody(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	p, err := New(&v1beta1.PushMethod{HTTP: &v1beta1.PushHTTP{HostName: server.URL}}, Secrets{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 * queue {
		p.Push(Sample{})
	}
	close(release)
	p.Close()
}
