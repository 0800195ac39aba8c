// Package join tests how machines become nodes, from anywhere, on the built binary in the lab.
package join
