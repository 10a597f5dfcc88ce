// Package apply lets a real API server check the overlays: first a dry run of every object, then all of them, one overlay
// over the other.
package apply

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"heavy-read-api/test/kubernetes/control"
	"heavy-read-api/test/kubernetes/manifests"
)

const overlays = "../../../deploy/kubernetes/overlays"

func documents(t *testing.T, overlay string, replace ...string) []*unstructured.Unstructured {
	t.Helper()
	stream, err := manifests.Build(filepath.Join(overlays, overlay))
	if err != nil {
		t.Fatal(err)
	}
	if len(replace) > 0 {
		changed := []byte(strings.NewReplacer(replace...).Replace(string(stream)))
		if bytes.Equal(changed, stream) {
			t.Fatalf("the overlay does not contain %q", replace[0])
		}
		stream = changed
	}
	objects, err := manifests.Documents(stream)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestApply(t *testing.T) {
	plane := control.Start(t)
	applier, err := control.NewApplier(plane)
	if err != nil {
		t.Fatal(err)
	}
	for i, overlay := range []string{"demo", "sentinel", "external", "demo"} {
		objects := documents(t, overlay)
		if i == 0 { // a dry run needs the namespace
			if _, err := applier.Apply(t.Context(), objects[0], false); err != nil {
				t.Fatal(err)
			}
		}
		for _, dryRun := range []bool{true, false} {
			for _, o := range objects {
				if _, err := applier.Apply(t.Context(), o, dryRun); err != nil {
					t.Errorf("%s over what was there, dry run %t: %v", overlay, dryRun, err)
				}
			}
		}
		for _, o := range objects {
			before, err := applier.Apply(t.Context(), o, false)
			if err != nil {
				continue // reported above
			}
			again, err := applier.Apply(t.Context(), o, false)
			if err != nil || again.GetGeneration() != before.GetGeneration() {
				t.Errorf("%s: %s changes each time it is applied: generation %d, then %d: %v",
					overlay, o.GetName(), before.GetGeneration(), again.GetGeneration(), err)
			}
		}
	}

	t.Run("operator", func(t *testing.T) { applyOperator(t, plane) })
	t.Run("mistakes", func(t *testing.T) {
		for _, b := range []struct{ old, new, want string }{
			{"minReadySeconds:", "minReadySecond:", "field not declared in schema"},
			{"maxSkew: 1", "maxSkew: 0", "must be greater than zero"},
			{"runAsNonRoot: true", "runAsNonRoot: false", "would violate PodSecurity"},
			{"path: /ready\n            port: http", "path: /ready\n            port: Http_", "port"},
			{"averageUtilization: 70", "averageUtilization: 0", "must be greater than 0"},
			{"seconds: 10", "seconds: 60", "terminationGracePeriodSeconds"},
			{"net.ipv4.ip_unprivileged_port_start", "net.core.somaxconn", "would violate PodSecurity"},
		} {
			var reports []string
			for _, o := range documents(t, "demo", b.old, b.new) {
				if _, err := applier.Apply(t.Context(), o, true); err != nil {
					reports = append(reports, err.Error())
				}
			}
			if !strings.Contains(strings.Join(reports, "\n"), b.want) {
				t.Errorf("the server reports %q in place of %q as %q, want %q", b.new, b.old, reports, b.want)
			}
		}
	})
}
