package health

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

// ConfigName is the ConfigMap with the settings, in kube-system, or in edge-system where SuperEdge has it.
const ConfigName = "edge-health-config"

// unitMark is the value of a label that makes the label's key the unit of a node.
const unitMark = "nodeunits.superedge.io"

// everyNode is the unit that SuperEdge puts every node in: it says nothing.
const everyNode = "unit-node-all"

// settings are what the ConfigMap says, with defaults for the rest.
type settings struct {
	rules verdict.Rules
	// gossip is false where nodes shall not gossip; port and probe are where and how often they do.
	gossip bool
	port   int
	probe  time.Duration
	// unitLabel is the label whose value is the unit of a node.
	unitLabel string
	// units says that the units of SuperEdge count first: those of chosen, or all of them.
	units  bool
	chosen []string
	// edge and other are how long a lost node is left alone, labelled as edge or not; 0 means for ever.
	edge, other time.Duration
}

func defaults() settings {
	return settings{
		rules:  verdict.Rules{LostAfter: 50 * time.Second, Standing: 4 * time.Second},
		gossip: true, port: 6447, probe: time.Second, unitLabel: "apps.openyurt.io/nodepool", other: 5 * time.Minute,
	}
}

// readSettings takes what is right in a ConfigMap's data and returns errors for the rest, for which the default stays.
func readSettings(data map[string]string) (settings, error) {
	s := defaults()
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if err := s.set(key, strings.TrimSpace(data[key])); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	return s, errors.Join(errs...)
}

func (s *settings) set(key, value string) (err error) {
	const short, long = 5 * time.Second, time.Hour
	switch key {
	case "unit-internal-check":
		s.units, err = readBool(value)
	case "check-units":
		s.chosen = strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
	case "unit-label":
		if s.unitLabel = value; value == "" {
			s.unitLabel, err = defaults().unitLabel, errors.New("is empty: name a label of nodes")
		}
	case "gossip":
		s.gossip, err = readBool(value)
	case "gossip-port":
		port, e := strconv.Atoi(value)
		if e != nil || port < 1 || port > 65535 {
			return fmt.Errorf("%q is not a port: write a number from 1 to 65535", value)
		}
		s.port = port
	case "probe-interval":
		err = readTime(value, 200*time.Millisecond, time.Minute, &s.probe)
	case "lost-after":
		err = readTime(value, short, long, &s.rules.LostAfter)
	case "autonomy-duration":
		err = readPatience(value, &s.edge)
	case "autonomy-duration-other":
		err = readPatience(value, &s.other)
	default:
		err = errors.New("is not a setting: see the guide on autonomy")
	}
	return err
}

func readBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "true", "on", "yes":
		return true, nil
	case "false", "off", "no":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", value)
}

func readTime(value string, low, high time.Duration, into *time.Duration) error {
	d, err := time.ParseDuration(value)
	if err != nil || d < low || d > high {
		return fmt.Errorf("%q must be a time from %s to %s, like 20s", value, low, high)
	}
	*into = d
	return nil
}

// readPatience reads a time for which 0 means for ever.
func readPatience(value string, into *time.Duration) error {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return fmt.Errorf("%q must be a time like 24h, or 0 for ever", value)
	}
	*into = d
	return nil
}

// unitOf returns the unit of a node by its labels; empty for the whole cluster.
func (s settings) unitOf(labels map[string]string) string {
	if s.units {
		if unit := markedUnit(labels, s.chosen); unit != "" {
			return unit
		}
	}
	if unit := labels[s.unitLabel]; unit != "" {
		return unit
	}
	return markedUnit(labels, nil)
}

// markedUnit returns the first unit of SuperEdge that a node is in, of those chosen if there are any.
func markedUnit(labels map[string]string, chosen []string) string {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if labels[key] == unitMark && key != everyNode && (len(chosen) == 0 || slices.Contains(chosen, key)) {
			return key
		}
	}
	return ""
}
