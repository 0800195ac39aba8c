// Package secrets tests the encryption of Secrets in the datastore, on the built binary in the lab. Nothing imports it.
package secrets
