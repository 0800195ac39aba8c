package convert

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// object reads YAML or JSON.
func object(t testing.TB, text string) map[string]any {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := utiljson.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func show(v any) string {
	data, _ := json.MarshalIndent(v, "", " ")
	return string(data)
}

const modbusAlpha = `
metadata: {name: plc}
spec:
  deviceModelRef: {name: m}
  protocol:
    modbus: {slaveID: 3}
    common: {tcp: {ip: 10.0.0.7, port: 502}, commType: TCP, reconnTimeout: 5}
  nodeSelector: {nodeSelectorTerms: [{matchExpressions: [{key: '', operator: In, values: [n1]}]}]}
  propertyVisitors:
  - propertyName: level
    collectCycle: 500
    modbus: {register: HoldingRegister, offset: 4, limit: 1, scale: 0.5}
  - propertyName: pump
    customizedProtocol: {protocolName: other, configData: {a: 1, b: [x, {y: z}]}}
  data: {dataTopic: topic, dataProperties: [{propertyName: level, metadata: {a: b}}]}
status:
  twins:
  - {propertyName: level, desired: {value: '7', metadata: {type: int}}, reported: {value: '6'}}
`

const fullBeta = `
metadata: {name: d, annotations: {mine: kept}}
spec:
  deviceModelRef: {name: m}
  nodeName: n1
  protocol: {protocolName: modbus, configData: {slaveID: 1, ip: 10.0.0.1, port: 502, strange: {deep: [1, 2.5, null]}}}
  properties:
  - name: a
    desired: {value: 'x', metadata: {timestamp: '5'}}
    visitors: {protocolName: modbus, configData: {register: CoilRegister, offset: 1}}
    collectCycle: 100
    reportToCloud: true
    pushMethod: {mqtt: {address: 'tcp://b:1883', topic: t}}
  - {name: b, reportToCloud: false}
  methods: [{name: go, propertyNames: [a]}]
  stateReport: {reportToCloud: true, reportCycle: 1000}
status: {reportToCloud: true}
`

func TestNothingIsLost(t *testing.T) {
	for name, tc := range map[string]struct {
		text, from, to string
		convert        func(map[string]any, string, string) error
	}{
		"device alpha": {modbusAlpha, Alpha, Beta, Device},
		"device beta":  {fullBeta, Beta, Alpha, Device},
		"model alpha": {`
metadata: {name: m}
spec:
  protocol: modbus
  properties:
  - {name: a, description: d, type: {int: {accessMode: ReadWrite, defaultValue: 4, minimum: -1, maximum: 100, unit: mm}}}
  - {name: b, type: {double: {accessMode: ReadOnly, minimum: 0.5}}}
  - {name: c, type: {string: {accessMode: ReadOnly, defaultValue: ''}}}
  - {name: d, type: {boolean: {defaultValue: true}}}`, Alpha, Beta, Model},
		"model beta": {`
metadata: {name: m}
spec:
  protocol: x
  protocolConfigData: {a: 1}
  properties:
  - {name: a, type: INT, accessMode: ReadWrite, minimum: '1', maximum: '0x10', visitors: {protocolName: x}}
  - {name: s, type: STREAM, unit: frames}
  - {name: f, type: FLOAT, minimum: '-40', maximum: '1e3'}`, Beta, Alpha, Model},
	} {
		t.Run(name, func(t *testing.T) {
			obj := object(t, tc.text)
			if err := tc.convert(obj, tc.from, tc.to); err != nil {
				t.Fatal(err)
			}
			there := show(obj)
			if err := tc.convert(obj, tc.to, tc.from); err != nil {
				t.Fatal(err)
			}
			if want := object(t, tc.text); !reflect.DeepEqual(obj, want) {
				t.Errorf("got  %s\nwant %s\nas %s %s", show(obj), show(want), tc.to, there)
			}
		})
	}
}

func TestWhatTheNewerVersionSays(t *testing.T) {
	obj := object(t, modbusAlpha)
	if err := Device(obj, Alpha, Beta); err != nil {
		t.Fatal(err)
	}
	want := object(t, `
deviceModelRef: {name: m}
nodeName: n1
protocol: {protocolName: modbus, configData: {slaveID: 3, ip: 10.0.0.7, port: 502, commType: TCP, reconnTimeout: 5}}
properties:
- name: level
  collectCycle: 500
  reportToCloud: true
  desired: {value: '7', metadata: {type: int}}
  visitors: {protocolName: modbus, configData: {register: HoldingRegister, offset: 4, limit: 1, scale: 0.5}}
- name: pump
  reportToCloud: true
  visitors: {protocolName: other, configData: {a: 1, b: [x, {y: z}]}}`)
	if !reflect.DeepEqual(obj["spec"], any(want)) {
		t.Errorf("got %s", show(obj["spec"]))
	}
}

func TestACommandThroughTheOlderVersion(t *testing.T) {
	obj := object(t, fullBeta)
	if err := Device(obj, Beta, Alpha); err != nil {
		t.Fatal(err)
	}
	obj["status"] = object(t, `twins: [{propertyName: a, desired: {value: 'y'}}, {propertyName: b, desired: {value: 'new'}}]`)
	if err := Device(obj, Alpha, Beta); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("{value: 'x', metadata: {timestamp: '5'}}", "{value: 'y'}", "{name: b,", "{name: b, desired: {value: 'new'},").Replace(fullBeta)
	want := object(t, text)
	delete(obj["metadata"].(map[string]any)["annotations"].(map[string]any), Annotation+Alpha)
	if !reflect.DeepEqual(obj, want) {
		t.Errorf("got %s\nwant %s", show(obj), show(want))
	}
}

func TestTooMuchToCarry(t *testing.T) {
	obj := object(t, fullBeta)
	obj["status"] = map[string]any{"large": strings.Repeat("x", maxResidue)}
	if err := Device(obj, Beta, Alpha); err == nil || !strings.Contains(err.Error(), "no place") {
		t.Errorf("got %v", err)
	}
}

func FuzzConversionLosesNothing(f *testing.F) {
	for _, text := range []string{modbusAlpha, fullBeta, `{"spec":{"properties":[{"name":"a"},{"name":"a"},3,null]},"status":[]}`,
		`{"spec":{"protocol":{"customizedProtocol":{"protocolName":5}},"propertyVisitors":[{"modbus":{}}]}}`} {
		data, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, convert := range []func(map[string]any, string, string) error{Device, Model} {
			for _, way := range [][2]string{{Alpha, Beta}, {Beta, Alpha}} {
				var obj, want map[string]any
				if utiljson.Unmarshal(data, &obj) != nil || obj == nil {
					return
				}
				delete(obj, "metadata") // the API server gives metadata of the right types
				given, err := normal(body{"spec": obj["spec"], "status": obj["status"]})
				if err != nil {
					return
				}
				prune(given)
				want = given
				if convert(obj, way[0], way[1]) != nil || convert(obj, way[1], way[0]) != nil {
					return
				}
				got := body{"spec": obj["spec"], "status": obj["status"]}
				prune(got)
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("got %s\nwant %s", show(got), show(want))
				}
			}
		}
	})
}
