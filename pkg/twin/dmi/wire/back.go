package wire

import (
	"fmt"

	dmi "github.com/kedge-io/kedge/pkg/twin/dmi/api"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
)

// FromModel reads the message of a model.
func FromModel(m *dmi.DeviceModel) *v1beta1.DeviceModel {
	out := &v1beta1.DeviceModel{}
	out.Name, out.Namespace = m.GetName(), m.GetNamespace()
	for _, p := range m.GetSpec().GetProperties() {
		out.Spec.Properties = append(out.Spec.Properties, v1beta1.ModelProperty{
			Name: p.GetName(), Description: p.GetDescription(), Type: p.GetType(), AccessMode: p.GetAccessMode(),
			Minimum: p.GetMinimum(), Maximum: p.GetMaximum(), Unit: p.GetUnit(),
		})
	}
	return out
}

// FromDevice reads the message of a device and its twins.
func FromDevice(d *dmi.Device) (*v1beta1.Device, v1beta1.Status, error) {
	out, status := &v1beta1.Device{}, v1beta1.Status{}
	out.Name, out.Namespace = d.GetName(), d.GetNamespace()
	spec := d.GetSpec()
	out.Spec.DeviceModelRef = &v1beta1.ModelRef{Name: spec.GetDeviceModelReference()}
	config, err := unpack(spec.GetProtocol().GetConfigData())
	if err != nil {
		return nil, status, fmt.Errorf("protocol: %w", err)
	}
	out.Spec.Protocol = v1beta1.ProtocolConfig{ProtocolName: spec.GetProtocol().GetProtocolName(), ConfigData: config}
	for _, p := range spec.GetProperties() {
		config, err := unpack(p.GetVisitors().GetConfigData())
		if err != nil {
			return nil, status, fmt.Errorf("property %s: %w", p.GetName(), err)
		}
		out.Spec.Properties = append(out.Spec.Properties, v1beta1.Property{
			Name: p.GetName(), Desired: FromValue(p.GetDesired()), ReportCycle: p.GetReportCycle(), CollectCycle: p.GetCollectCycle(),
			ReportToCloud: p.GetReportToCloud(), PushMethod: fromPush(p.GetPushMethod()),
			Visitors: &v1beta1.Visitor{ProtocolName: p.GetVisitors().GetProtocolName(), ConfigData: config},
		})
	}
	for _, m := range spec.GetMethods() {
		out.Spec.Methods = append(out.Spec.Methods, v1beta1.Method{Name: m.GetName(), Description: m.GetDescription(), PropertyNames: m.GetPropertyNames()})
	}
	for _, t := range d.GetStatus().GetTwins() {
		status.Twins = append(status.Twins, v1beta1.Twin{
			PropertyName: t.GetPropertyName(), Reported: FromValue(t.GetReported()), ObservedDesired: FromValue(t.GetObservedDesired()),
		})
	}
	if s := d.GetStatus(); s != nil && s.GetReportCycle() > 0 {
		out.Spec.StateReport = &v1beta1.StateReport{ReportToCloud: s.GetReportToCloud(), ReportCycle: s.GetReportCycle()}
	}
	return out, status, nil
}

// FromValue reads a value; nil when there is none or it is empty throughout.
func FromValue(v *dmi.TwinProperty) *v1beta1.Value {
	if v == nil || v.GetValue() == "" && len(v.GetMetadata()) == 0 {
		return nil
	}
	return &v1beta1.Value{Value: v.GetValue(), Metadata: v.GetMetadata()}
}

// ToValue is the message of a value; nil stays nil.
func ToValue(v *v1beta1.Value) *dmi.TwinProperty {
	if v == nil {
		return nil
	}
	return &dmi.TwinProperty{Value: v.Value, Metadata: v.Metadata}
}

func push(p *v1beta1.PushMethod) *dmi.PushMethod {
	if p == nil {
		return nil
	}
	out := &dmi.PushMethod{}
	if h := p.HTTP; h != nil {
		out.Http = &dmi.PushMethodHTTP{Hostname: h.HostName, Port: h.Port, Requestpath: h.RequestPath, Timeout: h.Timeout}
	}
	if m := p.MQTT; m != nil {
		out.Mqtt = &dmi.PushMethodMQTT{Address: m.Address, Topic: m.Topic, Qos: m.QoS, Retained: m.Retained}
	}
	if o := p.OTEL; o != nil {
		out.Otel = &dmi.PushMethodOTEL{EndpointURL: o.EndpointURL}
	}
	if d := p.DBMethod; d != nil {
		out.DbMethod = database(d)
	}
	return out
}

func database(d *v1beta1.PushDatabase) *dmi.DBMethod {
	out := &dmi.DBMethod{}
	if i := d.Influxdb2; i != nil {
		out.Influxdb2 = &dmi.DBMethodInfluxdb2{}
		if c := i.Client; c != nil {
			out.Influxdb2.Influxdb2ClientConfig = &dmi.Influxdb2ClientConfig{Url: c.URL, Org: c.Org, Bucket: c.Bucket}
		}
		if c := i.Data; c != nil {
			out.Influxdb2.Influxdb2DataConfig = &dmi.Influxdb2DataConfig{Measurement: c.Measurement, Tag: c.Tag, FieldKey: c.FieldKey}
		}
	}
	if r := d.Redis; r != nil && r.Client != nil {
		out.Redis = &dmi.DBMethodRedis{RedisClientConfig: &dmi.RedisClientConfig{
			Addr: r.Client.Addr, Db: int32(r.Client.DB), Poolsize: int32(r.Client.PoolSize), MinIdleConns: int32(r.Client.MinIdleConns),
		}}
	}
	if t := d.TDEngine; t != nil && t.Client != nil {
		out.Tdengine = &dmi.DBMethodTDEngine{TdEngineClientConfig: &dmi.TDEngineClientConfig{Addr: t.Client.Addr, Dbname: t.Client.DBName}}
	}
	if m := d.MySQL; m != nil && m.Client != nil {
		out.Mysql = &dmi.DBMethodMySQL{MysqlClientConfig: &dmi.MySQLClientConfig{Addr: m.Client.Addr, Database: m.Client.Database, UserName: m.Client.UserName}}
	}
	return out
}

// fromPush reads what kedge's own drivers act on; databases other than InfluxDB are for others' drivers.
func fromPush(p *dmi.PushMethod) *v1beta1.PushMethod {
	if p == nil {
		return nil
	}
	out := &v1beta1.PushMethod{}
	if h := p.GetHttp(); h != nil {
		out.HTTP = &v1beta1.PushHTTP{HostName: h.GetHostname(), Port: h.GetPort(), RequestPath: h.GetRequestpath(), Timeout: h.GetTimeout()}
	}
	if m := p.GetMqtt(); m != nil {
		out.MQTT = &v1beta1.PushMQTT{Address: m.GetAddress(), Topic: m.GetTopic(), QoS: m.GetQos(), Retained: m.GetRetained()}
	}
	if o := p.GetOtel(); o != nil {
		out.OTEL = &v1beta1.PushOTEL{EndpointURL: o.GetEndpointURL()}
	}
	if i := p.GetDbMethod().GetInfluxdb2(); i != nil {
		c, d := i.GetInfluxdb2ClientConfig(), i.GetInfluxdb2DataConfig()
		out.DBMethod = &v1beta1.PushDatabase{Influxdb2: &v1beta1.PushInfluxdb2{
			Client: &v1beta1.InfluxClient{URL: c.GetUrl(), Org: c.GetOrg(), Bucket: c.GetBucket()},
			Data:   &v1beta1.InfluxData{Measurement: d.GetMeasurement(), Tag: d.GetTag(), FieldKey: d.GetFieldKey()},
		}}
	}
	return out
}
