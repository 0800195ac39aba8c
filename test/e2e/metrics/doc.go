// Package metrics holds the lab scenario of the resource metrics API: kubectl top of near and far nodes, and an autoscaler that scales on real CPU. Nothing imports it.
package metrics
