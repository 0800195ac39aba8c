// Package addons holds the scenarios of the manifests folder in the lab: what a newcomer does with it, and a site without any add-on. Nothing
// imports it.
package addons
