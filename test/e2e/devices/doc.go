// Package devices tests devices on nodes, their drivers and their twins, on the built binary in the lab.
package devices
