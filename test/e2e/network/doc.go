// Package network holds the scenarios of pods that talk across nodes, in the lab. Nothing imports it.
package network
