// Package ingress holds the lab scenario of Ingress and the Gateway API: hosts, paths, TLS, weights, filters and statuses on the ports of a server. Nothing imports it.
package ingress
