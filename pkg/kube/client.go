package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// Client works with objects of any kind. It is safe for concurrent use.
type Client struct {
	Dynamic dynamic.Interface

	mapper *restmapper.DeferredDiscoveryRESTMapper
}

// NewClient prepares a client; it does not connect.
func NewClient(cfg *rest.Config) (*Client, error) {
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make API client: %w", err)
	}
	dyn, err := dynamic.NewForConfigAndClient(cfg, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make API client: %w", err)
	}
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(cfg, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make discovery client: %w", err)
	}
	return &Client{Dynamic: dyn, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))}, nil
}

// ForgetKinds drops what discovery found, and the memory it takes; the next use asks the server again.
func (c *Client) ForgetKinds() { c.mapper.Reset() }

// Ref names one object.
type Ref struct {
	APIVersion string
	Kind       string
	Namespace  string
	Name       string
}

// RefOf names an object.
func RefOf(obj *unstructured.Unstructured) Ref {
	return Ref{APIVersion: obj.GetAPIVersion(), Kind: obj.GetKind(), Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// GroupKind is the kind without its version: objects of two versions of a kind are the same objects.
func (r Ref) GroupKind() schema.GroupKind {
	return schema.FromAPIVersionAndKind(r.APIVersion, r.Kind).GroupKind()
}

// String is kind, namespace and name as a person would say them.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Resource finds the API of a ref and corrects its namespace: objects without one live in "default", and kinds that belong
// to the cluster have none. It fails with a missing kind (MissingKind) when the server does not serve it.
func (c *Client) Resource(ref Ref) (dynamic.ResourceInterface, Ref, error) {
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	mapping, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, ref, err
	}
	resource := c.Dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		ref.Namespace = ""
		return resource, ref, nil
	}
	if ref.Namespace == "" {
		ref.Namespace = metav1.NamespaceDefault
	}
	return resource.Namespace(ref.Namespace), ref, nil
}

// ApplyOptions are the choices of one Apply.
type ApplyOptions struct {
	Manager string // field manager: the same for ever, or fields are orphaned
	DryRun  bool   // check only
}

// Apply sends the object with server-side apply, taking over fields that other managers own, and refuses unknown fields.
// It returns the object as it is in the cluster then.
func (c *Client) Apply(ctx context.Context, obj *unstructured.Unstructured, opts ApplyOptions) (*unstructured.Unstructured, error) {
	resource, ref, err := c.Resource(RefOf(obj))
	if err != nil {
		return nil, err
	}
	if obj.GetNamespace() != ref.Namespace {
		obj = obj.DeepCopy()
		obj.SetNamespace(ref.Namespace)
	}
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	force := true
	patch := metav1.PatchOptions{FieldManager: opts.Manager, Force: &force, FieldValidation: metav1.FieldValidationStrict}
	if opts.DryRun {
		patch.DryRun = []string{metav1.DryRunAll}
	}
	return resource.Patch(ctx, ref.Name, types.ApplyPatchType, data, patch)
}

// Prune removes the objects that owned accepts, in the order given, and returns those that are still there because an
// attempt failed, with the errors joined. Objects and kinds that do not exist, or are not owned, count as removed.
func (c *Client) Prune(ctx context.Context, refs []Ref, owned func(*unstructured.Unstructured) bool) (left []Ref, err error) {
	for _, ref := range refs {
		if e := c.prune(ctx, ref, owned); e != nil {
			left = append(left, ref)
			err = errors.Join(err, fmt.Errorf("remove %s: %w", ref, e))
		}
	}
	return left, err
}

func (c *Client) prune(ctx context.Context, ref Ref, owned func(*unstructured.Unstructured) bool) error {
	resource, ref, err := c.Resource(ref)
	if MissingKind(err) {
		return nil
	}
	if err != nil {
		return err
	}
	live, err := resource.Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if live.GetDeletionTimestamp() != nil || !owned(live) {
		return nil
	}
	uid, background := live.GetUID(), metav1.DeletePropagationBackground
	err = resource.Delete(ctx, ref.Name, metav1.DeleteOptions{
		Preconditions:     &metav1.Preconditions{UID: &uid},
		PropagationPolicy: &background,
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // gone, or another object of the same name by now
		return nil
	}
	return err
}

// MissingKind says whether the server does not serve the kind (yet).
func MissingKind(err error) bool {
	if meta.IsNoMatchError(err) {
		return true
	}
	var status apierrors.APIStatus // a resource path that is not there is answered with a NotFound that names no object
	return apierrors.IsNotFound(err) && errors.As(err, &status) && (status.Status().Details == nil || status.Status().Details.Name == "")
}

// MissingNamespace says whether an object was refused because its namespace does not exist (yet).
func MissingNamespace(err error) bool {
	var status apierrors.APIStatus
	return apierrors.IsNotFound(err) && errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Kind == "namespaces"
}

// Unavailable says whether the server could not be asked at all: it is down, starting, overloaded or slow. Nothing is
// known about the object then.
func Unavailable(err error) bool {
	if err == nil {
		return false
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		code := status.Status().Code
		return code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout ||
			code == http.StatusUnauthorized
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || utilnet.IsProbableEOF(err) || utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err)
}

// Refused says whether the server understood the object and will not have it as it is: only a change of the object helps.
// Server-side apply answers an unknown field of a built-in kind with an internal error, which only its text tells apart.
func Refused(err error) bool {
	if err != nil && strings.Contains(err.Error(), "failed to create typed patch object") {
		return true
	}
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) ||
		apierrors.ReasonForError(err) == metav1.StatusReasonUnsupportedMediaType
}
