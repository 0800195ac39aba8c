// Package registry holds the scenarios of images in the lab: registries with logins, mirrors, own authorities and other names, archives that
// come late, and further container runtimes. Nothing imports it.
package registry
