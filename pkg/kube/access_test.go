package kube

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestAwaitAccess(t *testing.T) {
	services := schema.GroupResource{Resource: "services"}
	for name, last := range map[string]error{"allowed": nil, "not there": apierrors.NewNotFound(services, "kubernetes")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers := []error{errors.New("connection refused"), apierrors.NewForbidden(services, "kubernetes", nil), last}
				asked := 0
				ok := AwaitAccess(t.Context(), func(context.Context) error {
					asked++
					return answers[asked-1]
				})
				if !ok || asked != len(answers) {
					t.Errorf("ended with %v after %d of %d answers", ok, asked, len(answers))
				}
			})
		})
	}
}

func TestAwaitAccessEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		hangs := func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		if AwaitAccess(ctx, hangs) {
			t.Error("access without an answer")
		}
	})
}
