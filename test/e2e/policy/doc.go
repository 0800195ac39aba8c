// Package policy holds the scenarios of NetworkPolicies in the lab: a truth table of nine pods on two nodes, pods that start under a policy,
// and nodes without their server. Nothing imports it.
package policy
