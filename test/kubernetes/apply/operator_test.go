package apply

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"heavy-read-api/test/kubernetes/control"
	"heavy-read-api/test/kubernetes/manifests"
)

// The operator's module has its CustomResourceDefinitions as files only, so it cannot be required in go.mod. The version is
// that of its types there.
const (
	operator    = "github.com/prometheus-operator/prometheus-operator@v0.90.1"
	operatorSum = "h1:n/+FkLB6WpftBxJC8IEHrWXSA6uzNTocFmwU/ACkfeg="
)

// definitions returns the definitions of the kinds that we use.
func definitions(t *testing.T) (all []*unstructured.Unstructured) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", operator)
	cmd.Dir = t.TempDir() // outside of this module, whose go.sum it would change
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("download %s: %v: %s", operator, err, out)
	}
	var module struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	if module.Sum != operatorSum {
		t.Fatalf("%s has the sum %s, want %s", operator, module.Sum, operatorSum)
	}
	for _, kind := range []string{"servicemonitors", "prometheusrules"} {
		content, err := os.ReadFile(filepath.Join(module.Dir, "example/prometheus-operator-crd/monitoring.coreos.com_"+kind+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		objects, err := manifests.Documents(content)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, objects...)
	}
	return all
}

// applyOperator checks the component prometheus-operator by the schemas of the operator's definitions, which have patterns
// and values that its types do not have.
func applyOperator(t *testing.T, plane *control.Plane) {
	applier, err := control.NewApplier(plane)
	if err != nil {
		t.Fatal(err)
	}
	for _, definition := range definitions(t) {
		if _, err := applier.Apply(t.Context(), definition, false); err != nil {
			t.Fatal(err)
		}
	}
	good, err := manifests.BuildWithOperator(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	check := func(stream []byte) (reports []string) {
		objects, err := manifests.Documents(stream)
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		for _, o := range objects {
			if o.GroupVersionKind().Group != "monitoring.coreos.com" {
				continue
			}
			count++
			if _, err := applier.Apply(t.Context(), o, true); err != nil {
				reports = append(reports, err.Error())
			}
		}
		if count < 6 {
			t.Errorf("the component has only %d objects", count)
		}
		return reports
	}
	control.Wait(t, 30*time.Second, "the API server to serve the operator's kinds", func() error {
		for _, kind := range []string{"servicemonitors", "prometheusrules"} {
			if err := plane.Client.RESTClient().Get().AbsPath("/apis/monitoring.coreos.com/v1", kind).Do(t.Context()).Error(); err != nil {
				return err
			}
		}
		return nil
	})
	if applier, err = control.NewApplier(plane); err != nil { // discovers the kinds
		t.Fatal(err)
	}
	for _, report := range check(good) {
		t.Error(report)
	}
	for _, b := range []struct{ old, new, want string }{
		{"interval: 5s", "interval: 5 s", "should match"},
		{"scrapeTimeout:", "scrapeTimeOut:", "field not declared in schema"},
		{"targetLabel: instance", "targetLabel: instance\n      action: rename", "Unsupported value"},
		{"record:", "recorded:", "field not declared in schema"},
	} {
		bad := bytes.Replace(good, []byte(b.old), []byte(b.new), 1)
		if bytes.Equal(bad, good) {
			t.Fatalf("the overlay does not contain %q", b.old)
		}
		if reports := check(bad); !strings.Contains(strings.Join(reports, "\n"), b.want) {
			t.Errorf("the server reports %q in place of %q as %q, want %q", b.new, b.old, reports, b.want)
		}
	}
}
