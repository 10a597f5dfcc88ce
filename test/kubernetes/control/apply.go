package control

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// Applier applies objects as kubectl apply --server-side --validate=strict does, and collects the server's warnings, such as
// those about Pods that the namespace does not admit.
type Applier struct {
	client dynamic.Interface
	mapper *restmapper.DeferredDiscoveryRESTMapper

	mu       sync.Mutex // guards warnings
	warnings []string
}

// NewApplier returns an Applier for the API server of p.
func NewApplier(p *Plane) (*Applier, error) {
	a := &Applier{mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(p.Client.Discovery()))}
	config := rest.CopyConfig(p.Config)
	config.WarningHandler = a
	var err error
	a.client, err = dynamic.NewForConfig(config)
	return a, err
}

// HandleWarningHeader implements rest.WarningHandler.
func (a *Applier) HandleWarningHeader(_ int, _ string, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.warnings = append(a.warnings, text)
}

// Apply applies an object, or only lets the server check it, and returns what the server has stored. A warning is an error.
func (a *Applier) Apply(ctx context.Context, object *unstructured.Unstructured, dryRun bool) (*unstructured.Unstructured, error) {
	kind := object.GetObjectKind().GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", object.GetKind()+" "+object.GetName(), err)
	}
	content, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	force := true
	options := meta.PatchOptions{FieldManager: "test", Force: &force, FieldValidation: meta.FieldValidationStrict}
	if dryRun {
		options.DryRun = []string{meta.DryRunAll}
	}
	a.mu.Lock()
	a.warnings = nil
	a.mu.Unlock()
	stored, err := a.client.Resource(mapping.Resource).Namespace(object.GetNamespace()).Patch(ctx, object.GetName(), types.ApplyPatchType, content, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", object.GetKind()+" "+object.GetName(), err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.warnings) > 0 {
		return nil, fmt.Errorf("%s: the server warns: %q", object.GetKind()+" "+object.GetName(), a.warnings)
	}
	return stored, nil
}
