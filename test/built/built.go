// Package built finds the repository and the kedge that tests run. Tests may import it; the product never does.
package built

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// EnvBinary is the environment variable with the path of the kedge to test; a relative one counts from the root of the repository.
const EnvBinary = "KEDGE_BIN"

// Kedge is the path of the kedge to test: that of EnvBinary, or bin/kedge. The error says how to get one.
func Kedge() (string, error) {
	path := os.Getenv(EnvBinary)
	if path == "" {
		path = filepath.Join("bin", "kedge")
	}
	if !filepath.IsAbs(path) {
		root, err := Root()
		if err != nil {
			return "", err
		}
		path = filepath.Join(root, path)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no kedge to test: %w: run make build, or set %s", err, EnvBinary)
	}
	return path, nil
}

// Root is the directory of go.mod above the working directory, which for a test is its package.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
	}
}
