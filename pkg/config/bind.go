package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// binding stores the values given for one setting in the configuration.
// Its errors complete the sentence "--flag: ...".
type binding func(cfg *Server, values []string) error

func last(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

func text(field func(*Server) *string) binding {
	return func(cfg *Server, values []string) error {
		*field(cfg) = strings.TrimSpace(last(values))
		return nil
	}
}

func yesNo(field func(*Server) *bool) binding {
	return func(cfg *Server, values []string) error {
		v := last(values)
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", v)
		}
		*field(cfg) = b
		return nil
	}
}

// number takes an integer between low and high; an empty value means 0, not set.
func number(low, high int, field func(*Server) *int) binding {
	return func(cfg *Server, values []string) error {
		v := strings.TrimSpace(last(values))
		if v == "" {
			*field(cfg) = 0
			return nil
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < low || n > high {
			return fmt.Errorf("%q is not a number from %d to %d", v, low, high)
		}
		*field(cfg) = n
		return nil
	}
}

// list keeps each value as it is.
func list(field func(*Server) *[]string) binding {
	return func(cfg *Server, values []string) error {
		*field(cfg) = append([]string(nil), values...)
		return nil
	}
}

// commas splits each value at its commas and drops empty items.
func commas(field func(*Server) *[]string) binding {
	return func(cfg *Server, values []string) error {
		*field(cfg) = split(values)
		return nil
	}
}

func split(values []string) []string {
	var items []string
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
	}
	return items
}

func address(field func(*Server) *netip.Addr) binding {
	return func(cfg *Server, values []string) error {
		v := strings.TrimSpace(last(values))
		if v == "" {
			*field(cfg) = netip.Addr{}
			return nil
		}
		a, err := parseAddr(v)
		if err == nil {
			*field(cfg) = a
		}
		return err
	}
}

func addresses(field func(*Server) *[]netip.Addr) binding {
	return func(cfg *Server, values []string) error {
		var addrs []netip.Addr
		for _, item := range split(values) {
			a, err := parseAddr(item)
			if err != nil {
				return err
			}
			addrs = append(addrs, a)
		}
		*field(cfg) = addrs
		return nil
	}
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, fmt.Errorf("%q is not an IP address", s)
	}
	return a.Unmap(), nil
}

func prefixes(field func(*Server) *[]netip.Prefix) binding {
	return func(cfg *Server, values []string) error {
		var ps []netip.Prefix
		for _, item := range split(values) {
			p, err := netip.ParsePrefix(item)
			if err != nil {
				return fmt.Errorf("%q is not a network in CIDR form, for example 10.42.0.0/16", item)
			}
			if p != p.Masked() {
				return fmt.Errorf("%s has address bits behind the prefix: write %s", p, p.Masked())
			}
			ps = append(ps, p)
		}
		*field(cfg) = ps
		return nil
	}
}

func mode(field func(*Server) *os.FileMode) binding {
	return func(cfg *Server, values []string) error {
		v := strings.TrimPrefix(last(values), "0o")
		m, err := strconv.ParseUint(v, 8, 32)
		if err != nil || m > 0o777 {
			return fmt.Errorf("%q is not a file mode in octal, for example 0640", last(values))
		}
		*field(cfg) = os.FileMode(m)
		return nil
	}
}

// unbuilt refuses a setting that others of this family know, with the reason, rather than ignore it.
func unbuilt(reason string) binding {
	return func(_ *Server, values []string) error {
		if last(values) == "false" {
			return nil
		}
		return errors.New(reason)
	}
}
