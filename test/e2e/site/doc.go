// Package site holds the scenarios of one server in the lab: what a first user does, restarts, kills, bad input. Nothing imports it.
package site
