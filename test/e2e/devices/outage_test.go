package devices

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// crowd is how many sensors report while the link is cut, each ten times a second; the node sends up to one report a second of each.
const crowd = 8

// outage is how long they report: long enough that reports of many seconds wait on disk. KEDGE_DEVICES_OUTAGE makes it longer.
func outage() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("KEDGE_DEVICES_OUTAGE")); err == nil {
		return d
	}
	return 15 * time.Second
}

// addSensors applies the crowd.
func (s *scene) addSensors() {
	s.Helper()
	var yaml strings.Builder
	for i := range crowd {
		fmt.Fprintf(&yaml, `---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: sensor-%d}
spec:
  deviceModelRef: {name: temperature-model-v1}
  nodeName: edge-node-1
  protocol: {protocolName: virtual, configData: {seed: %d}}
  properties:
  - {name: temperature, collectCycle: 100, reportCycle: 100, reportToCloud: true}
  - {name: sample-period, desired: {value: "500"}, collectCycle: 100, reportCycle: 100, reportToCloud: true}
`, i, i)
	}
	s.server.Apply(yaml.String())
	for i := range crowd {
		s.server.AwaitField("devicestatus", fmt.Sprintf("sensor-%d", i), twinOf("sample-period", "observedDesired"), "500")
	}
}

// record collects every report that the cluster sees: name, number, time of the temperature, its value and the sample period.
func (s *scene) record() func() []seen {
	const path = `{.metadata.name} {.status.extensions.kedgeSequence} {.status.twins[?(@.propertyName=='temperature')].reported.metadata.timestamp} ` +
		`{.status.twins[?(@.propertyName=='temperature')].reported.value} {.status.twins[?(@.propertyName=='sample-period')].reported.value}{'\n'}`
	watch := s.server.Beside("kubectl", "get", "devicestatus", "--watch", "-o", "jsonpath="+path)
	return func() (out []seen) {
		for line := range strings.Lines(watch.Output()) {
			f := strings.Fields(line)
			if len(f) < 5 || !strings.HasSuffix(line, "\n") {
				continue
			}
			_, number, _ := strings.Cut(f[1], ":")
			n, errN := strconv.Atoi(number)
			at, errAt := strconv.ParseInt(f[2], 10, 64)
			if errN == nil && errAt == nil {
				out = append(out, seen{f[0], n, time.UnixMilli(at), f[3], f[4]})
			}
		}
		return out
	}
}

// seen is one report.
type seen struct {
	name   string
	number int
	at     time.Time
	value  string
	period string
}

// reportForLong lets the sensors report without a link, sets values here and in the cluster meanwhile, and returns when it began and ended.
func (s *scene) reportForLong() (begin, end time.Time) {
	s.Helper()
	begin = time.Now()
	for i := range 4 {
		value := strconv.Itoa(801 + i)
		s.node.Kedge("device", "set", "sensor-1", "sample-period", value)
		s.awaitLocal("sensor-1", "sample-period", "reported", value)
	}
	// Of one device both sides want something else: the cluster's counts.
	s.node.Kedge("device", "set", "sensor-2", "sample-period", "901")
	s.server.Kubectl("patch", "device", "sensor-2", "--type=json", "-p", `[{"op":"replace","path":"/spec/properties/1/desired/value","value":"950"}]`)
	for time.Since(begin) < outage() {
		if _, err := s.local("sensor-0"); err != nil {
			s.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	return begin, time.Now()
}

// bothSidesAgree expects the last values of the node in the cluster.
func (s *scene) bothSidesAgree() {
	s.Helper()
	for i := range crowd {
		name := fmt.Sprintf("sensor-%d", i)
		s.lab.Await("the last values of "+name+" in the cluster", patience, func() error {
			d, err := s.local(name)
			if err != nil {
				return err
			}
			for _, property := range []string{"temperature", "sample-period"} {
				got, err := s.server.Field("devicestatus", name, twinOf(property, "reported"))
				if err != nil || got != d.value(property, "reported") {
					return fmt.Errorf("%s is %q, on the node %q, %w", property, got, d.value(property, "reported"), err)
				}
			}
			return nil
		})
	}
	s.server.AwaitField("device", "sensor-1", period, "804")
	s.server.AwaitField("device", "sensor-2", period, "950")
}

// nothingIsLost expects each device's reports in order and once, of the device whose period only grew no earlier one again, no number missing but where the node lost power, and for each device about one
// report for each second without a link.
func (s *scene) nothingIsLost(reports []seen, begin, end time.Time) {
	s.Helper()
	numbers, last, during := map[int]bool{}, map[string]seen{}, map[string]int{}
	for i, r := range reports {
		before, again := last[r.name]
		switch {
		case again && r.number == before.number: // the watch shows what is there first
			continue
		case again && (r.number < before.number || r.at.Before(before.at) || r.name == "temperature-v1" && r.period < before.period):
			s.Errorf("report %d: %+v comes after %+v", i, r, before)
		case numbers[r.number]:
			s.Errorf("report %d: number %d for the second time", i, r.number)
		}
		numbers[r.number], last[r.name] = true, r
		if r.at.After(begin) && r.at.Before(end) {
			during[r.name]++
		}
	}
	sorted, gaps := slices.Sorted(maps.Keys(numbers)), []string{}
	for i, n := range sorted[1:] {
		if n != sorted[i]+1 && i >= crowd { // the first ones are what was there when the watch began
			gaps = append(gaps, fmt.Sprintf("%d-%d", sorted[i], n))
		}
	}
	if len(gaps) > 1 {
		s.Errorf("reports are missing between %v", gaps)
	}
	for name, n := range during {
		// The last two seconds before the power cut may have been in memory only.
		if want := int(end.Sub(begin)/time.Second)*2/3 - 3; n < want {
			s.Errorf("%d reports of %s, want %d", n, name, want)
		}
	}
	s.Logf("%d reports were seen, %d of the %s without a link, gaps %v", len(numbers), sum(during), end.Sub(begin).Round(time.Second), gaps)
}

// lastPeriod says whether the last report of a device has a sample period.
func lastPeriod(reports []seen, name, want string) error {
	got := ""
	for _, r := range reports {
		if r.name == name {
			got = r.period
		}
	}
	if got != want {
		return fmt.Errorf("it is %q, want %q", got, want)
	}
	return nil
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}
