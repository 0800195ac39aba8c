package kube

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Times between two attempts, and for one.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = time.Second
	askTimeout = 5 * time.Second
)

// AwaitAccess repeats a request until the API allows it, or says that there is no such object: on the first start of a site roles
// appear after the API does, and an informer would log every attempt as an error and wait longer after each. It says whether ctx
// still lives.
func AwaitAccess(ctx context.Context, ask func(context.Context) error) bool {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		limited, cancel := context.WithTimeout(ctx, askTimeout)
		err := ask(limited)
		cancel()
		if err == nil || apierrors.IsNotFound(err) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}
