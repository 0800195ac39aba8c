// Package grid tests units of nodes on the built kedge: the same workloads in each, and traffic that stays inside, also while a unit is cut off.
package grid
