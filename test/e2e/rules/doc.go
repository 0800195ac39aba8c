// Package rules tests messages between programs on nodes and programs elsewhere, on the built binary in the lab.
package rules
