// Package manifests builds the overlays of deploy/kubernetes and checks them as far as that works without a cluster.
package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Root is the folder of the manifests, seen from a package of this module.
const Root = "../../../deploy/kubernetes"

// Build returns what kubectl kustomize prints for a folder. It refuses files outside of a kustomization's folder, as kubectl does.
func Build(dir string) ([]byte, error) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, err
	}
	return resources.AsYaml()
}

// BuildWithOperator returns what kubectl kustomize prints for the overlay sentinel with the component prometheus-operator, in a
// kustomization.yaml that it writes into the empty folder dir.
func BuildWithOperator(dir string) ([]byte, error) {
	root, err := filepath.Abs(Root)
	if err != nil {
		return nil, err
	}
	if root, err = filepath.Rel(dir, root); err != nil { // kustomize accepts relative paths only
		return nil, err
	}
	kustomization := fmt.Sprintf("namespace: heavy-read-api\nresources: [%s/overlays/sentinel]\ncomponents: [%[1]s/components/prometheus-operator]\n", root)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
		return nil, err
	}
	return Build(dir)
}

// Object is an object of the API.
type Object interface {
	runtime.Object
	meta.Object
}

// decoder rejects fields that an object does not have, and fields that occur twice.
var decoder = func() runtime.Decoder {
	if err := monitoring.AddToScheme(scheme.Scheme); err != nil {
		panic(err)
	}
	return serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// Decode returns the objects of a YAML stream.
func Decode(stream []byte) ([]Object, error) {
	var objects []Object
	var problems []error
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(stream)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, errors.Join(problems...)
		}
		if err != nil {
			return nil, err
		}
		decoded, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			problems = append(problems, fmt.Errorf("%w in %.60q", err, document))
			continue
		}
		objects = append(objects, decoded.(Object))
	}
}

// Documents returns the objects of a YAML stream with exactly the fields that are written there.
func Documents(stream []byte) (all []*unstructured.Unstructured, err error) {
	decoder := utilyaml.NewYAMLToJSONDecoder(bytes.NewReader(stream))
	for {
		o := new(unstructured.Unstructured)
		switch err := decoder.Decode(&o.Object); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, o)
	}
}

// Workload is a Pod template and what runs it.
type Workload struct {
	Object
	Replicas int // 0 if something else sets it
	Selector *meta.LabelSelector
	Template core.PodTemplateSpec
	Claims   []string // names of the volume claim templates
}

// Containers returns all containers, those of the initialization first.
func (w Workload) Containers() []core.Container {
	return slices.Concat(w.Template.Spec.InitContainers, w.Template.Spec.Containers)
}

// Name returns the kind and the name.
func Name(o Object) string {
	return o.GetObjectKind().GroupVersionKind().Kind + " " + o.GetName()
}

// Workloads returns everything that runs Pods.
func Workloads(objects []Object) (all []Workload) {
	for _, o := range objects {
		switch o := o.(type) {
		case *apps.Deployment:
			w := Workload{Object: o, Selector: o.Spec.Selector, Template: o.Spec.Template}
			if o.Spec.Replicas != nil {
				w.Replicas = int(*o.Spec.Replicas)
			}
			all = append(all, w)
		case *apps.StatefulSet:
			w := Workload{Object: o, Selector: o.Spec.Selector, Template: o.Spec.Template, Replicas: int(*o.Spec.Replicas)}
			for _, c := range o.Spec.VolumeClaimTemplates {
				w.Claims = append(w.Claims, c.Name)
			}
			all = append(all, w)
		case *batch.CronJob:
			all = append(all, Workload{Object: o, Template: o.Spec.JobTemplate.Spec.Template})
		}
	}
	return all
}

// pods returns the labels of the Pods of a workload: of each Pod of a StatefulSet, else one set for all.
func (w Workload) pods() []labels.Set {
	if _, ok := w.Object.(*apps.StatefulSet); !ok {
		return []labels.Set{w.Template.Labels}
	}
	var all []labels.Set
	for i := range w.Replicas {
		all = append(all, labels.Merge(w.Template.Labels, labels.Set{apps.StatefulSetPodNameLabel: fmt.Sprintf("%s-%d", w.GetName(), i)}))
	}
	return all
}

// selected returns the workloads with a Pod that the selector matches.
func selected(all []Workload, s labels.Selector) (found []Workload) {
	for _, w := range all {
		if slices.ContainsFunc(w.pods(), func(l labels.Set) bool { return s.Matches(l) }) {
			found = append(found, w)
		}
	}
	return found
}
