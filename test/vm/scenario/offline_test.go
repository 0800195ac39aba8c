package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kedge-io/kedge/test/vm"
	"github.com/kedge-io/kedge/test/vm/disk"
	"github.com/kedge-io/kedge/test/workload"
)

// nodeAPI is where the agent answers by itself.
const nodeAPI = "http://127.0.0.1:10550"

// offlineReboot puts ten pods on the agent, pulls its cable, and takes the power away: switched on again, with the cable still pulled, the agent brings
// all of them back by itself.
func (s *installed) offlineReboot() {
	s.t.Helper()
	manifest := workload.Manifest("node", "/usr/local/bin/kedge")
	s.server.WriteFile("/root/workload.yaml", 0o644, manifest)
	s.server.MustRun("kedge kubectl apply -f /root/workload.yaml")
	before := s.awaitLocalPods(nil)
	s.kubectl(workload.Write()...)
	s.works(before)
	await(s.t, "roles and keys on the agent", siteTimeout, func(ctx context.Context) error { return s.offlineState(ctx, "up") })

	s.agent.LinkDown("nic0")
	await(s.t, "the agent notices", siteTimeout, func(ctx context.Context) error { return s.offlineState(ctx, "down") })
	s.agent.PowerCut(disk.LoseSome)
	on := time.Now()
	s.agent.Start()
	user := s.agent.AwaitAgent()
	after := s.awaitLocalPods(before)
	s.t.Logf("offline reboot: user space %v, %d pods Ready %v after power on, %v after the start of kedge",
		short(user), len(after), short(time.Since(on)), short(s.sinceStart()))
	if err := workload.Same(before, after, false); err != nil {
		s.t.Error(err)
	}
	s.works(after)
	if err := s.offlineState(s.t.Context(), "down"); err != nil {
		s.t.Errorf("the cable was pulled: %v", err)
	}
	s.agent.AwaitBoot()
	s.agent.LinkUp("nic0")
	s.awaitPods(time.Time{})
	if err := workload.Same(after, s.awaitLocalPods(nil), true); err != nil {
		s.t.Errorf("after the reconnect: %v", err)
	}
	s.server.MustRun("kedge kubectl delete --wait=false -f /root/workload.yaml")
	for _, g := range []*vm.Guest{s.server, s.agent} {
		g.MustRun("rm -rf /root/workload.yaml /root/.kube") // a user's own, which kedge does not remove
	}
}

// kubectl runs kedge kubectl --local on the agent.
func (s *installed) kubectl(args ...string) string {
	s.t.Helper()
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = "'" + a + "'"
	}
	return s.agent.MustRun("kedge kubectl --local " + strings.Join(quoted, " "))
}

// works uses what the pods offer each other.
func (s *installed) works(pods map[string]corev1.Pod) {
	s.t.Helper()
	for _, c := range workload.Checks(pods) {
		await(s.t, c.What, siteTimeout, func(context.Context) error {
			out, err := s.agent.Run("kedge kubectl --local '" + strings.Join(c.Args, "' '") + "'")
			if err != nil || !strings.Contains(out, c.Want) {
				return errors.Join(fmt.Errorf("%q", out), err)
			}
			return nil
		})
	}
}

// ask reads from the agent's plain port, over the control channel.
func (s *installed) ask(ctx context.Context, path string) ([]byte, error) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return s.agent.Dial(ctx, network, address)
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, nodeAPI+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%w %d: %.300s", errStatus, resp.StatusCode, data)
	}
	return data, err
}

// awaitLocalPods waits until all pods are ready as the agent sees it, in other containers than those of before, unless that is nil.
func (s *installed) awaitLocalPods(before map[string]corev1.Pod) (pods map[string]corev1.Pod) {
	s.t.Helper()
	await(s.t, "the pods on the agent are Ready", siteTimeout, func(ctx context.Context) error {
		data, err := s.ask(ctx, "/api/v1/namespaces/default/pods")
		if err != nil {
			return err
		}
		if pods, err = workload.Read(data); err != nil {
			return err
		}
		return workload.AllReady(pods, before)
	})
	return pods
}

// offlineState is nil when the agent sees the server as wanted, and could work without it.
func (s *installed) offlineState(ctx context.Context, server string) error {
	data, err := s.ask(ctx, "/kedge/state")
	if err != nil {
		return err
	}
	var state struct {
		Server   string
		Prepared bool
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return err
	}
	if state.Server != server || !state.Prepared {
		return fmt.Errorf("state %+v", state)
	}
	return nil
}

// sinceStart is how long kedge has run on the agent, by the agent's own clock.
func (s *installed) sinceStart() time.Duration {
	s.t.Helper()
	out := s.agent.MustRun("cut -d' ' -f1 /proc/uptime; systemctl show -p ExecMainStartTimestampMonotonic --value kedge-agent.service")
	uptime, start, _ := strings.Cut(out, "\n")
	now, err := strconv.ParseFloat(uptime, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	began, err := strconv.ParseInt(start, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return time.Duration(now*float64(time.Second)) - time.Duration(began)*time.Microsecond
}
