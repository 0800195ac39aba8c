// Package link tests, on the built binary in the lab, what a node costs on its line to the server: while nothing happens, and when the line is
// back after it was cut.
package link
