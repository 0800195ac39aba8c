package kube

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// lookTimeout bounds how long a write waits for the objects that it names.
const lookTimeout = 5 * time.Second

// Lookup finds the objects that another one names, while somebody writes that. Nothing is read or connected before the first question.
type Lookup struct {
	client func() (dynamic.Interface, error)
}

// NewLookup asks as the user of a kubeconfig, for a part of kedge.
func NewLookup(kubeconfig, part string) Lookup {
	return Lookup{sync.OnceValues(func() (dynamic.Interface, error) {
		cfg, err := Config(kubeconfig, part)
		if err != nil {
			return nil, err
		}
		return dynamic.NewForConfig(cfg)
	})}
}

// Get returns an object, or nil when there is none, or no name.
func (l Lookup) Get(kind schema.GroupVersionResource, namespace, name string) (*unstructured.Unstructured, error) {
	if name == "" {
		return nil, nil
	}
	client, err := l.client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	live, err := client.Resource(kind).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return live, err
}

// List returns the objects of a namespace, as the API server has them in memory.
func (l Lookup) List(kind schema.GroupVersionResource, namespace string) ([]unstructured.Unstructured, error) {
	client, err := l.client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	list, err := client.Resource(kind).Namespace(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}
