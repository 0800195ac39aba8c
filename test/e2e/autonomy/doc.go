// Package autonomy tests, on the built binary in the lab, that a node works on while it is cut off from its server: over restarts and reboots, and
// back again.
package autonomy
