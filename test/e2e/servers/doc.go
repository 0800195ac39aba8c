// Package servers tests several servers that are one cluster, on the built binary in the lab.
package servers
