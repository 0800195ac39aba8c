package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

func (s Server) validateListener() error {
	if a := s.AdvertiseAddress; a.IsValid() && (a.IsUnspecified() || a.IsLoopback() || a.IsMulticast()) {
		return fmt.Errorf("--advertise-address: %s is not an address that other machines can reach", a)
	}
	for _, san := range s.TLSSANs {
		name := strings.TrimPrefix(san, "*.")
		if _, err := netip.ParseAddr(san); err != nil && len(validation.IsDNS1123Subdomain(name)) > 0 {
			return fmt.Errorf("--tls-san: %q is neither a DNS name nor an IP address", san)
		}
	}
	if len(validation.IsDNS1123Subdomain(s.ClusterDomain)) > 0 {
		return fmt.Errorf("--cluster-domain: %q is not a DNS domain in lower case", s.ClusterDomain)
	}
	return nil
}

// validateCIDRs checks that there are one or two networks, of different families, with prefixes between the given lengths.
// The limits are those of the controller-manager (one /24 or /64 for each node) and of the API server (20 bits of Service
// addresses).
func validateCIDRs(name string, ps []netip.Prefix, min4, max4, min6, max6 int) error {
	if len(ps) == 0 || len(ps) > 2 || len(ps) == 2 && ps[0].Addr().Is4() == ps[1].Addr().Is4() {
		return fmt.Errorf("--%s: give one network, or one IPv4 and one IPv6 network", name)
	}
	for _, p := range ps {
		low, high := min4, max4
		if p.Addr().Is6() {
			low, high = min6, max6
		}
		if p.Bits() < low || p.Bits() > high {
			return fmt.Errorf("--%s: %s has a prefix of /%d, which must be from /%d to /%d", name, p, p.Bits(), low, high)
		}
	}
	return nil
}

// validateNetworks checks the networks against each other and against the addresses of this node.
func (s Server) validateNetworks() error {
	for _, c := range s.ClusterCIDRs {
		for _, v := range s.ServiceCIDRs {
			if c.Overlaps(v) {
				return fmt.Errorf("--cluster-cidr: %s overlaps --service-cidr %s: choose separate networks", c, v)
			}
		}
	}
	if s.FlannelExternalIP && s.FlannelBackend != "wireguard-native" {
		return errors.New("--flannel-external-ip: works with --flannel-backend wireguard-native only: the others need the nodes' own addresses")
	}
	if families(s.ClusterCIDRs) != families(s.ServiceCIDRs) {
		return errors.New("--service-cidr: its IP families must be those of --cluster-cidr, in the same order")
	}
	for _, a := range append([]netip.Addr{s.AdvertiseAddress}, s.NodeIPs...) {
		for _, p := range append(append([]netip.Prefix{}, s.ClusterCIDRs...), s.ServiceCIDRs...) {
			if a.IsValid() && p.Contains(a) {
				return fmt.Errorf("--cluster-cidr, --service-cidr: %s contains this machine's address %s: choose another network", p, a)
			}
		}
	}
	if a := s.AdvertiseAddress; a.IsValid() && len(s.ServiceCIDRs) > 0 && a.Is4() != s.ServiceCIDRs[0].Addr().Is4() {
		return fmt.Errorf("--advertise-address: %s must be of the IP family of the first --service-cidr, %s", a, s.ServiceCIDRs[0])
	}
	return nil
}

// families writes the IP families of ps in order, for comparison.
func families(ps []netip.Prefix) string {
	var b strings.Builder
	for _, p := range ps {
		if p.Addr().Is4() {
			b.WriteByte('4')
		} else {
			b.WriteByte('6')
		}
	}
	return b.String()
}

func (s Server) validateDNS() error {
	for _, a := range s.ClusterDNS {
		inside := false
		for _, p := range s.ServiceCIDRs {
			if !p.Contains(a) {
				continue
			}
			inside = true
			if a == p.Addr() || a == p.Addr().Next() {
				return fmt.Errorf("--cluster-dns: %s is taken: it is the network itself or the Service kubernetes", a)
			}
		}
		if !inside {
			return fmt.Errorf("--cluster-dns: %s is outside --service-cidr %s: choose an address inside", a, join(s.ServiceCIDRs))
		}
	}
	return onePerFamily("cluster-dns", s.ClusterDNS)
}

func join(ps []netip.Prefix) string {
	var parts []string
	for _, p := range ps {
		parts = append(parts, p.String())
	}
	return strings.Join(parts, ",")
}

// validate checks the settings of the message bus.
func (m MQTT) validate() error {
	checks := []error{
		both("mqtt-tls-cert", m.Cert, "mqtt-tls-key", m.Key),
		both("mqtt-external-certfile", m.ExternalCert, "mqtt-external-keyfile", m.ExternalKey),
		optional(existingBroker, "mqtt-external", m.External),
	}
	for _, l := range m.Listen {
		if a, err := netip.ParseAddrPort(l); err != nil || a.Port() == 0 {
			checks = append(checks, fmt.Errorf("--mqtt-listen: %q is not an IP address with a port, such as 0.0.0.0:8883", l))
		}
	}
	for name, path := range map[string]string{
		"mqtt-tls-cert": m.Cert, "mqtt-tls-key": m.Key, "mqtt-tls-client-ca": m.ClientCA, "mqtt-credentials": m.Credentials,
		"mqtt-external-credentials": m.ExternalCredentials, "mqtt-external-cafile": m.ExternalCA, "mqtt-external-certfile": m.ExternalCert,
	} {
		checks = append(checks, optional(absolute, name, path))
	}
	for name, path := range map[string]string{"mqtt-external-credentials": m.ExternalCredentials, "mqtt-external-cafile": m.ExternalCA, "mqtt-external-certfile": m.ExternalCert} {
		if path != "" && m.External == "" {
			checks = append(checks, fmt.Errorf("--%s: there is no --mqtt-external that it is for", name))
		}
	}
	return first(checks)
}

// both wants two settings or none of them.
func both(one, value, other, otherValue string) error {
	if (value == "") != (otherValue == "") {
		return fmt.Errorf("--%s and --%s belong together: give both or none", one, other)
	}
	return nil
}

// existingBroker checks the address of a broker.
func existingBroker(name, v string) error {
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "tcp" && u.Scheme != "ssl" || u.Hostname() == "" || u.Port() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("--%s: %q is not of the form tcp://HOST:PORT or ssl://HOST:PORT", name, v)
	}
	return nil
}
