package config

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Sources says where settings come from. Zero values choose what is named at each field.
type Sources struct {
	// File is the config file named on the command line. Empty: KEDGE_CONFIG_FILE, else K3S_CONFIG_FILE, else DefaultFile.
	// Only DefaultFile may be missing.
	File string
	// Flags holds the values of the flags that were given on the command line, by name.
	Flags map[string][]string
	// LookupEnv answers for the environment. Default: os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Hostname answers for the default of node-name. Default: os.Hostname.
	Hostname func() (string, error)
	// DefaultFile replaces the constant of that name, for tests.
	DefaultFile string
}

// ConfigEnv lists the environment variables that name the config file, the one that wins first.
func ConfigEnv() []string { return env("CONFIG_FILE") }

// LoadServer merges defaults, config file with drop-ins, environment and command line, in that order, and validates the
// result. An error names the setting, where it was given, and what to write instead.
func LoadServer(src Sources) (Server, error) {
	cfg, err := load(src, ServerSettings())
	if err != nil {
		return Server{}, err
	}
	return cfg, cfg.Validate()
}

// LoadAgent is LoadServer for the settings of one node.
func LoadAgent(src Sources) (Agent, error) {
	cfg, err := load(src, AgentSettings())
	if err != nil {
		return Agent{}, err
	}
	return cfg.Agent, cfg.Agent.Validate()
}

// given holds the values of one setting and where they came from, for error messages.
type given struct {
	values []string
	where  string
}

func load(src Sources, settings []Setting) (Server, error) {
	src = src.withDefaults()
	merged, err := src.readFiles(settings)
	if err != nil {
		return Server{}, err
	}
	for _, s := range settings {
		for _, name := range s.Env {
			if v, _ := src.LookupEnv(name); v != "" {
				merged[s.Name] = given{[]string{v}, name}
				break
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(src.Flags)) {
		merged[name] = given{src.Flags[name], "--" + name}
	}
	var cfg Server
	for _, s := range settings {
		g, ok := merged[s.Name]
		if !ok {
			g = given{[]string{s.Default}, "default of " + s.Name}
			if s.Default == "" {
				continue
			}
		}
		if err := s.bind(&cfg, g.values); err != nil {
			return Server{}, fmt.Errorf("%s: %w", g.where, err)
		}
	}
	return cfg, cfg.derive(src)
}

func (src Sources) withDefaults() Sources {
	if src.LookupEnv == nil {
		src.LookupEnv = os.LookupEnv
	}
	if src.Hostname == nil {
		src.Hostname = os.Hostname
	}
	if src.DefaultFile == "" {
		src.DefaultFile = DefaultFile
	}
	return src
}

// derive fills the settings whose default follows from others.
func (s *Server) derive(src Sources) error {
	if s.NodeName == "" {
		host, err := src.Hostname()
		if err != nil {
			return fmt.Errorf("read the host name: %w: set --node-name", err)
		}
		s.NodeName = strings.ToLower(host)
	}
	s.KubeletArgs = append(s.kubeletOptions(), s.KubeletArgs...)
	if !s.BindAddress.IsValid() {
		s.BindAddress = netip.IPv4Unspecified()
		if len(s.ClusterCIDRs) > 0 && s.ClusterCIDRs[0].Addr().Is6() {
			s.BindAddress = netip.IPv6Unspecified()
		}
	}
	if s.DefaultLocalStoragePath == "" {
		s.DefaultLocalStoragePath = filepath.Join(s.DataDir, "storage")
	}
	if len(s.ClusterDNS) == 0 {
		for _, p := range s.ServiceCIDRs {
			a := p.Addr()
			for range 10 {
				a = a.Next()
			}
			s.ClusterDNS = append(s.ClusterDNS, a)
		}
	}
	return nil
}

// kubeletOptions are the settings that are the kubelet's own; later arguments win.
func (a Agent) kubeletOptions() []string {
	var out []string
	if a.ProtectKernelDefaults {
		out = append(out, "protect-kernel-defaults=true")
	}
	if a.CredentialProviderDir != "" {
		out = append(out, "image-credential-provider-bin-dir="+a.CredentialProviderDir)
	}
	if a.CredentialProviderConfig != "" {
		out = append(out, "image-credential-provider-config="+a.CredentialProviderConfig)
	}
	return out
}

// Nearest returns the name among known that needs the fewest edits to become name, or "" when none comes close.
// It counts edits as Levenshtein does.
func Nearest(name string, known []string) string {
	best, distance := "", max(1, (len(name)+1)/3)+1
	for _, k := range known {
		if d := levenshtein(name, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
