// Package helm holds the lab scenario of HelmChart files: a chart from a registry in the site is installed, changed, rolled back and removed. Nothing imports it.
package helm
