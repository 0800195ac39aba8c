package openapi

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	apiextensionshelpers "k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	apiextensionsfeatures "k8s.io/apiextensions-apiserver/pkg/features"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/server/mux"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/spec3"
)

// listTimeout bounds the reading of all definitions for one request.
const listTimeout = 10 * time.Second

// Definitions reads all definitions of custom resources.
type Definitions func(context.Context) ([]apiextensionsv1.CustomResourceDefinition, error)

// Custom knows the groups of custom resources. It keeps names and hashes only: a document is built from the definitions each time
// it is asked for, where upstream keeps all of them from the start, close to a megabyte for a kind.
type Custom struct {
	list Definitions

	mu    sync.Mutex
	last  *catalogue
	stale bool
}

// NewCustom makes the groups of what list reads. Nothing is read before the first request.
func NewCustom(list Definitions) *Custom { return &Custom{list: list, stale: true} }

// Read is the Definitions that the server at cfg has.
func Read(cfg *rest.Config) (Definitions, error) {
	client, err := clientset.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client for definitions: %w", err)
	}
	return func(ctx context.Context) ([]apiextensionsv1.CustomResourceDefinition, error) {
		list, err := client.ApiextensionsV1().CustomResourceDefinitions().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return nil, fmt.Errorf("list definitions: %w", err)
		}
		return list.Items, nil
	}, nil
}

// Follow makes what calls Changed for each change of a definition at the server at cfg, until its context is done.
func (c *Custom) Follow(cfg *rest.Config) (run func(context.Context), err error) {
	client, err := metadata.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client for metadata: %w", err)
	}
	informer := metadatainformer.NewFilteredMetadataInformer(client, apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"),
		"", 0, cache.Indexers{}, nil).Informer()
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.Changed() },
		UpdateFunc: func(any, any) { c.Changed() },
		DeleteFunc: func(any) { c.Changed() },
	})
	if err != nil {
		return nil, fmt.Errorf("watch definitions: %w", err)
	}
	return informer.RunWithContext, nil
}

// Changed says that definitions are others than at the last request.
func (c *Custom) Changed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stale = true
}

// catalogue is builtin with the groups of custom resources; those of before while the definitions cannot be read.
func (c *Custom) catalogue(ctx context.Context, builtin map[string]document) *catalogue {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stale && c.last != nil {
		return c.last
	}
	c.stale = false
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	definitions, err := c.list(ctx)
	if err != nil {
		c.stale = true
		if c.last == nil {
			return newCatalogue(builtin)
		}
		return c.last
	}
	documents := maps.Clone(builtin)
	for group, parts := range versions(definitions) {
		documents[group] = document{hash: digest(strings.Join(parts, " ")), install: func(ctx context.Context, m *mux.PathRecorderMux) error {
			return c.install(ctx, group, m)
		}}
	}
	c.last = newCatalogue(documents)
	return c.last
}

// versions names what each group version is made of: the served versions of the established definitions.
func versions(definitions []apiextensionsv1.CustomResourceDefinition) map[string][]string {
	groups := map[string][]string{}
	for i := range definitions {
		for _, group := range served(&definitions[i]) {
			groups[group] = append(groups[group], fmt.Sprintf("%s/%d", definitions[i].UID, definitions[i].Generation))
		}
	}
	for _, parts := range groups {
		slices.Sort(parts)
	}
	return groups
}

// served are the group versions that a definition has a part in, in the order of its versions.
func served(d *apiextensionsv1.CustomResourceDefinition) []string {
	if !apiextensionshelpers.IsCRDConditionTrue(d, apiextensionsv1.Established) {
		return nil
	}
	var groups []string
	for _, v := range d.Spec.Versions {
		if v.Served {
			groups = append(groups, "apis/"+d.Spec.Group+"/"+v.Name)
		}
	}
	return groups
}

// install builds the document of a group version as upstream does, which leaves out a definition that cannot be shown.
func (c *Custom) install(ctx context.Context, group string, m *mux.PathRecorderMux) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	definitions, err := c.list(ctx)
	if err != nil {
		return err
	}
	options := builder.Options{IncludeSelectableFields: utilfeature.DefaultFeatureGate.Enabled(apiextensionsfeatures.CustomResourceFieldSelectors)}
	var parts []*spec3.OpenAPI
	for i := range definitions {
		if !slices.Contains(served(&definitions[i]), group) {
			continue
		}
		_, version, _ := strings.Cut(strings.TrimPrefix(group, "apis/"), "/")
		if part, err := builder.BuildOpenAPIV3(&definitions[i], version, options); err == nil {
			parts = append(parts, part)
		}
	}
	merged, err := builder.MergeSpecsV3(parts...)
	if err != nil {
		return fmt.Errorf("merge definitions of %s: %w", group, err)
	}
	service := handler3.NewOpenAPIService()
	service.UpdateGroupVersion(group, merged)
	return service.RegisterOpenAPIV3VersionedService(pathV3, m)
}
