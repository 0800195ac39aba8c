// Package health tests neighbour health on the built binary in the lab: whose pods stay and whose go when nodes are out of reach.
package health
