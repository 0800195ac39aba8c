// Package ruleset is one nftables table as a value: what it shall hold, the script that makes it anew, and the script that turns
// one such value into another in a single transaction. It runs nothing. It is an inner room of pkg/network/policy, and is pure.
package ruleset

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Table is a table of the family inet.
type Table struct {
	Name   string
	Sets   map[string]Set
	Chains map[string]Chain
}

// Set is a named set, or with Verdicts a verdict map.
type Set struct {
	// Type is what its elements are, for example "ipv4_addr . inet_service".
	Type string
	// Verdicts says that each element has a verdict.
	Verdicts bool
	// Elements are the elements, each with its verdict or with an empty string.
	Elements map[string]string
}

// Chain is a list of rules.
type Chain struct {
	// Hook is where a base chain hangs, for example "type filter hook input priority filter;", or empty.
	Hook  string
	Rules []string
}

// perCommand is how many elements one command adds, so that no line becomes endless.
const perCommand = 256

// Create is a script for nft -f that replaces whatever table of this name there is.
func (t Table) Create() string {
	return t.Remove() + fmt.Sprintf("add table inet %s\n", t.Name) + t.From(Table{Name: t.Name})
}

// Remove is a script for nft -f after which there is no such table, whether there was one or not.
func (t Table) Remove() string {
	return fmt.Sprintf("add table inet %[1]s\ndelete table inet %[1]s\n", t.Name)
}

// From is a script for nft -f that makes t out of old, which must be what the kernel has; it is empty when they are equal. Chains
// and sets that others refer to come first and go last.
func (t Table) From(old Table) string {
	w := &script{table: t.Name}
	for _, name := range slices.Sorted(maps.Keys(t.Sets)) {
		if _, ok := old.Sets[name]; !ok {
			w.declareSet(name, t.Sets[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Chains)) {
		if _, ok := old.Chains[name]; !ok {
			w.declareChain(name, t.Chains[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Chains)) {
		was, there := old.Chains[name]
		w.rules(name, was.Rules, t.Chains[name].Rules, there)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Sets)) {
		w.elements(name, old.Sets[name].Elements, t.Sets[name].Elements)
	}
	w.removeChains(old.Chains, t.Chains)
	for _, name := range slices.Sorted(maps.Keys(old.Sets)) {
		if _, ok := t.Sets[name]; !ok {
			w.line("delete %s inet %s %s", kind(old.Sets[name]), w.table, name)
		}
	}
	return w.text.String()
}

func kind(s Set) string {
	if s.Verdicts {
		return "map"
	}
	return "set"
}

// script collects commands for one table.
type script struct {
	table string
	text  strings.Builder
}

func (w *script) line(format string, args ...any) { fmt.Fprintf(&w.text, format+"\n", args...) }

func (w *script) declareSet(name string, s Set) {
	typ := s.Type
	if s.Verdicts {
		typ += " : verdict"
	}
	w.line("add %s inet %s %s { type %s; }", kind(s), w.table, name, typ)
}

func (w *script) declareChain(name string, c Chain) {
	if c.Hook == "" {
		w.line("add chain inet %s %s", w.table, name)
		return
	}
	w.line("add chain inet %s %s { %s }", w.table, name, c.Hook)
}

// rules writes the rules of a chain, whole, when they differ.
func (w *script) rules(chain string, old, now []string, there bool) {
	if slices.Equal(old, now) {
		return
	}
	if there {
		w.line("flush chain inet %s %s", w.table, chain)
	}
	for _, r := range now {
		w.line("add rule inet %s %s %s", w.table, chain, r)
	}
}

// elements writes the difference between two sets. An element whose verdict changes is removed and added.
func (w *script) elements(set string, old, now map[string]string) {
	var remove, add []string
	for _, e := range slices.Sorted(maps.Keys(old)) {
		if v, ok := now[e]; !ok || v != old[e] {
			remove = append(remove, e)
		}
	}
	for _, e := range slices.Sorted(maps.Keys(now)) {
		v, ok := old[e]
		if ok && v == now[e] {
			continue
		}
		if now[e] != "" {
			e += " : " + now[e]
		}
		add = append(add, e)
	}
	for some := range slices.Chunk(remove, perCommand) {
		w.line("delete element inet %s %s { %s }", w.table, set, strings.Join(some, ", "))
	}
	for some := range slices.Chunk(add, perCommand) {
		w.line("add element inet %s %s { %s }", w.table, set, strings.Join(some, ", "))
	}
}

// removeChains empties the chains that go before it deletes them, because they may refer to each other.
func (w *script) removeChains(old, now map[string]Chain) {
	var gone []string
	for _, name := range slices.Sorted(maps.Keys(old)) {
		if _, ok := now[name]; !ok {
			gone = append(gone, name)
			w.line("flush chain inet %s %s", w.table, name)
		}
	}
	for _, name := range gone {
		w.line("delete chain inet %s %s", w.table, name)
	}
}
