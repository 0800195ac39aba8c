package devices

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

const period = "{.spec.properties[?(@.name=='sample-period')].desired.value}"

func twinOf(property, kind string) string {
	return fmt.Sprintf("{.status.twins[?(@.propertyName=='%s')].%s.value}", property, kind)
}

// writes are the values that the simulated device was set to, in order.
func writes(p *lab.Program) (values []string) { return writesTo(p, "temperature-v1") }

func writesTo(p *lab.Program, device string) (values []string) {
	for line := range strings.Lines(p.Output()) {
		if _, value, ok := strings.Cut(line, "device=default/"+device+" property=sample-period value="); ok {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

func TestDeviceOfANodeThatIsCutOff(t *testing.T) {
	s := newScene(t)
	s.fixture("temperature-v1beta1.yaml")
	driver := s.node.Beside("mapper", "virtual")
	s.server.AwaitField("devicestatus", "temperature-v1", "{.status.state}", "online")
	s.server.AwaitField("devicestatus", "temperature-v1", twinOf("sample-period", "reported"), "500")
	s.desiredArrives(driver)
	s.addSensors()
	reports := s.record()
	s.lab.Await("the watch of reports", patience, func() error {
		if n := len(reports()); n < crowd {
			return fmt.Errorf("%d reports", n)
		}
		return nil
	})

	s.farm.Uplink().Cut()
	for _, value := range []string{"701", "702"} {
		s.node.Kedge("device", "set", "temperature-v1", "sample-period", value)
		s.awaitLocal("temperature-v1", "sample-period", "reported", value)
	}
	if out, err := s.node.TryKedge("device", "set", "temperature-v1", "sample-period", "99"); err == nil || !strings.Contains(err.Error(), "below the minimum 100") {
		t.Errorf("a value below the minimum: %q, %v", out, err)
	}
	if out, err := s.node.TryKedge("device", "set", "temperature-v1", "temperature", "20"); err == nil || !strings.Contains(err.Error(), "ReadOnly") {
		t.Errorf("a value of a sensor: %q, %v", out, err)
	}
	if got := fmt.Sprint(writes(driver)); got != "[500 600 701 702]" {
		t.Errorf("the driver was told %s", got)
	}
	begin, end := s.reportForLong()
	if got := fmt.Sprint(writesTo(driver, "sensor-1")); got != "[500 801 802 803 804]" {
		t.Errorf("the driver of sensor-1 was told %s", got)
	}
	driver.Stop()
	s.node.Reboot()
	s.node.Start()
	again := s.node.Beside("mapper", "virtual")
	s.driverIsBack(again)
	if got, err := s.server.Field("devicestatus", "temperature-v1", twinOf("sample-period", "reported")); err != nil || got != "600" {
		t.Errorf("the cluster has %q over a link that is cut, %v", got, err)
	}

	s.farm.Uplink().Heal()
	s.server.AwaitField("device", "temperature-v1", period, "702")
	s.server.AwaitField("devicestatus", "temperature-v1", twinOf("sample-period", "reported"), "702")
	s.server.AwaitField("devicestatus", "temperature-v1", twinOf("sample-period", "observedDesired"), "702")
	if got := fmt.Sprint(writes(again)); got != "[702]" {
		t.Errorf("the driver was told %s after the reboot", got)
	}
	s.bothSidesAgreeAfter(again)
	s.lab.Await("the last report in the watch", patience, func() error { return lastPeriod(reports(), "temperature-v1", "702") })
	s.nothingIsLost(reports(), begin, end)
}

// bothSidesAgreeAfter ends the driver, so that values stand still.
func (s *scene) bothSidesAgreeAfter(driver *lab.Program) {
	s.Helper()
	s.server.AwaitField("devicestatus", "sensor-2", twinOf("sample-period", "observedDesired"), "950")
	driver.Stop()
	s.bothSidesAgree()
	for name, want := range map[string]string{"sensor-1": "[804]", "sensor-2": "[901 950]"} {
		if got := fmt.Sprint(writesTo(driver, name)); got != want {
			s.Errorf("the driver of %s was told %s after the reboot, want %s", name, got, want)
		}
	}
}

// driverIsBack waits until a driver that was started again has set what was wanted on the node before.
func (s *scene) driverIsBack(driver *lab.Program) {
	s.Helper()
	for name, value := range map[string]string{"temperature-v1": "702", "sensor-1": "804", "sensor-2": "901"} {
		s.lab.Await("the driver at work after the reboot", patience, func() error {
			if got := fmt.Sprint(writesTo(driver, name)); got != "["+value+"]" {
				return fmt.Errorf("the device %s was told %s, want %s", name, got, value)
			}
			return nil
		})
		s.awaitLocal(name, "sample-period", "reported", value)
	}
}

// desiredArrives sets a value in the cluster and measures the way to the driver.
func (s *scene) desiredArrives(driver *lab.Program) {
	s.Helper()
	s.server.Kubectl("patch", "device", "temperature-v1", "--type=json", "-p",
		`[{"op":"replace","path":"/spec/properties/1/desired/value","value":"600"}]`)
	begin := time.Now()
	s.lab.Await("the value at the driver", patience, func() error {
		if w := writes(driver); len(w) == 0 || w[len(w)-1] != "600" {
			return fmt.Errorf("it was told %v", w)
		}
		return nil
	})
	s.Logf("the driver had the value %s after kubectl had ended", time.Since(begin).Round(time.Millisecond))
	s.server.AwaitField("devicestatus", "temperature-v1", twinOf("sample-period", "observedDesired"), "600")
}
