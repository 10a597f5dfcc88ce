package manifests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	autoscaling "k8s.io/api/autoscaling/v2"
)

// overlays are what a user applies. The second column of each is what the user must create first.
var overlays = []struct {
	name    string
	secrets []string
}{
	{"demo", nil},
	{"sentinel", []string{
		"redis-passwords: REDIS_ADMIN_PASSWORD",
		"redis-passwords: REDIS_EXPORTER_PASSWORD",
		"redis-passwords: REDIS_READER_PASSWORD",
		"redis-passwords: REDIS_REPLICA_PASSWORD",
		"redis-passwords: REDIS_WRITER_PASSWORD",
		"redis-passwords: SENTINEL_CLIENT_PASSWORD",
		"redis-passwords: SENTINEL_PASSWORD",
		"writer-token: WRITER_TOKEN",
	}},
	{"external", []string{
		"redis-passwords: REDIS_READER_PASSWORD",
		"redis-passwords: REDIS_WRITER_PASSWORD",
		"redis-tls",
		"writer-token: WRITER_TOKEN",
	}},
}

// stream returns what an overlay builds.
func stream(t *testing.T, overlay string) []byte {
	t.Helper()
	built, err := Build(filepath.Join(Root, "overlays", overlay))
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func decode(t *testing.T, overlay string) []Object {
	t.Helper()
	objects, err := Decode(stream(t, overlay))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestOverlays(t *testing.T) {
	for _, o := range overlays {
		t.Run(o.name, func(t *testing.T) {
			objects := decode(t, o.name)
			if len(objects) < 20 {
				t.Fatalf("the overlay has only %d objects", len(objects))
			}
			for _, problem := range Check(objects) {
				t.Error(problem)
			}
			var missing []string
			for _, m := range Missing(objects) {
				missing = append(missing, strings.TrimPrefix(m, "Secret "))
			}
			if !slices.Equal(missing, o.secrets) {
				t.Errorf("Pods refer to what is not there: %q, want the Secrets %q", missing, o.secrets)
			}
			for _, object := range objects {
				if n := object.GetNamespace(); n != "heavy-read-api" && Name(object) != "Namespace heavy-read-api" {
					t.Errorf("%s is in the namespace %q", Name(object), n)
				}
			}
		})
	}
}

// TestPageCreatesSecrets compares the Secrets that an overlay lacks with the commands of the page.
func TestPageCreatesSecrets(t *testing.T) {
	page, err := os.ReadFile("../../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	created := map[string]bool{}
	command := regexp.MustCompile(`(?s)create secret generic (\S+)(.*?[^\\])\n`)
	key := regexp.MustCompile(`--from-(?:literal|file)=([\w.]+)`)
	for _, m := range command.FindAllSubmatch(page, -1) {
		created[string(m[1])] = true
		for _, k := range key.FindAllSubmatch(m[2], -1) {
			created[string(m[1])+": "+string(k[1])] = true
		}
	}
	for _, o := range overlays {
		for _, secret := range o.secrets {
			if !created[secret] {
				t.Errorf("no command on the page creates the Secret %s, which the overlay %s needs", secret, o.name)
			}
		}
	}
}

// TestPageNamesRequests compares the page with what an overlay requests, with as many readers as the autoscaler starts with,
// and with the images of others that it needs.
func TestPageNamesRequests(t *testing.T) {
	page, err := os.ReadFile("../../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range overlays {
		objects := decode(t, o.name)
		var cpu, memory float64
		for _, w := range Workloads(objects) {
			replicas := w.Replicas
			for _, object := range objects {
				if h, ok := object.(*autoscaling.HorizontalPodAutoscaler); ok && h.Spec.ScaleTargetRef.Name == w.GetName() {
					replicas = int(*h.Spec.MinReplicas)
				}
			}
			for _, c := range w.Template.Spec.Containers {
				cpu += float64(replicas) * c.Resources.Requests.Cpu().AsApproximateFloat64()
				memory += float64(replicas) * c.Resources.Requests.Memory().AsApproximateFloat64() / (1 << 30)
				image, _, _ := strings.Cut(c.Image, ":")
				if !bytes.Contains(page, []byte("`"+image+"`")) && !strings.HasPrefix(image, "heavy-read-api-") {
					t.Errorf("the page does not name the image %s of the overlay %s", image, o.name)
				}
			}
		}
		row := regexp.MustCompile(fmt.Sprintf(`\| .%s. \|.*\| %.3g CPUs, %.2g GiB \|\n`, o.name, cpu, memory))
		if !row.Match(page) {
			t.Errorf("the page has no row that matches %s", row)
		}
	}
}

// broken are mistakes, with a part of the message that reports each.
var broken = []struct{ overlay, old, new, want string }{
	{"demo", "minReadySeconds:", "minReadySecond:", `unknown field "spec.minReadySecond"`},
	{"demo", "kind: Deployment", "kind: Deploymint", "no kind"},
	{"demo", "memory: 768Mi", "memory: 768Mib", "quantities must match"},
	{"demo", "maxUnavailable: 1", "maxUnavailable: 1\n  maxUnavailable: 1", "already set"},
	{"demo", "    matchLabels:\n      app.kubernetes.io/name: reader\n  strategy", "    matchLabels:\n      app.kubernetes.io/name: readers\n  strategy", "Deployment reader does not select its own Pods"},
	{"demo", "  selector:\n    app.kubernetes.io/name: auditor", "  selector:\n    app.kubernetes.io/name: audit", "Service auditor selects no Pod"},
	{"demo", "targetPort: metrics", "targetPort: metric", "has no port metric"},
	{"demo", "          name: metrics", "          name: measures", "uses port metrics, which it does not have"},
	{"demo", "          - apisix\n          - auditor", "          - apisixx\n          - auditor", "no Pod has app.kubernetes.io/name=apisixx"},
	{"demo", "    - port: redis\n", "    - port: valkey\n", "none of its Pods has the port valkey"},
	{"demo", "  policyTypes:\n  - Egress", "  policyTypes:\n  - Ingress", "a type that is not in policyTypes"},
	{"demo", "    kind: Deployment\n    name: reader", "    kind: Deployment\n    name: readers", "scales Deployment readers, which is not there"},
	{"demo", "  minReadySeconds: 10", "  replicas: 3\n  minReadySeconds: 10", "each apply would undo the scaling"},
	{"demo", "            cpu: 500m\n            ephemeral", "            ephemeral", "to which the utilization"},
	{"demo", "    matchLabels:\n      app.kubernetes.io/name: writer\n  unhealthy", "    matchLabels:\n      app.kubernetes.io/name: reader\n  unhealthy", "Deployment reader has 2 PodDisruptionBudgets"},
	{"demo", "    matchLabels:\n      app.kubernetes.io/name: writer\n  unhealthy", "    matchLabels:\n      app.kubernetes.io/name: reader\n  unhealthy", "Deployment writer has no PodDisruptionBudget"},
	{"demo", "            app.kubernetes.io/name: reader\n        matchLabelKeys", "            app.kubernetes.io/name: writer\n        matchLabelKeys", "does not count its own Pods"},
	{"demo", "prometheus.io/port: \"9092\"", "prometheus.io/port: \"8088\"", "names port 8088"},
	{"demo", "serviceName: redis", "serviceName: redises", "there is no headless Service redises"},
	{"demo", "  publishNotReadyAddresses: true\n", "", "leaves out Pods that are not ready"},
	{"demo", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "get a token for the API server"},
	{"demo", "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot, runAsUser and runAsGroup must be set"},
	{"demo", "type: RuntimeDefault", "type: Unconfined", "seccomp profile is not RuntimeDefault"},
	{"demo", "enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks is for address.sh only"},
	{"demo", "      enableServiceLinks: false\n", "", "enableServiceLinks must be set"},
	{"demo", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "the root file system must be read-only"},
	{"demo", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "without privilege escalation"},
	{"demo", "            - ALL\n", "            - CHOWN\n", "without privilege escalation and capabilities"},
	{"demo", "          limits:\n            memory: 512Mi", "          limits:\n            memory: 1Gi", "the memory limit must be set, and be the request"},
	{"demo", "image: heavy-read-api-reader:devel", "image: heavy-read-api-reader", "has no fixed tag"},
	{"demo", "image: heavy-read-api-reader:devel", "image: registry:5000/heavy-read-api-reader", "has no fixed tag"},
	{"demo", "        readinessProbe:", "        startupProbe:", "already set"},
	{"demo", "seconds: 10", "seconds: 25", "preStop must be a sleep shorter"},
	{"demo", "        - name: CACHE_SNAPSHOT_DIR", "        - name: REDIS_USERNAME", "sets REDIS_USERNAME twice"},
	{"demo", "        - mountPath: /snapshot\n          name: snapshot", "        - mountPath: /snapshot\n          name: snap", "there is no volume snap"},
	{"demo", "        - mountPath: /snapshot\n          name: snapshot", "        - mountPath: /snapshot\n          name: snap", "the volume snapshot is not mounted"},
	{"demo", "subPath: config.yaml", "subPath: config.yml", "has no file config.yml"},
	{"sentinel", "statefulset.kubernetes.io/pod-name: redis-2", "statefulset.kubernetes.io/pod-name: redis-3", "Service redis-2 selects no Pod"},
	{"demo", "        readinessProbe:\n          httpGet:\n            path: /ready\n            port: http\n          periodSeconds: 5\n          timeoutSeconds: 3\n", "",
		"no readiness or liveness probe"},
}

// TestMistakesAreReported breaks the manifests in every way that Check and Decode report.
func TestMistakesAreReported(t *testing.T) {
	for _, b := range broken {
		t.Run(b.want, func(t *testing.T) {
			good := stream(t, b.overlay)
			bad := bytes.Replace(good, []byte(b.old), []byte(b.new), 1)
			if bytes.Equal(bad, good) {
				t.Fatalf("the overlay does not contain %q", b.old)
			}
			objects, err := Decode(bad)
			problems := Check(objects)
			if err != nil {
				problems = append(problems, err.Error())
			}
			if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, b.want) }) {
				t.Errorf("%q in place of %q is reported as %q, want %q", b.new, b.old, problems, b.want)
			}
		})
	}
}

// TestMissingReferences renames what Pods refer to.
func TestMissingReferences(t *testing.T) {
	for _, m := range []struct{ old, new, want string }{
		{"key: WRITER_TOKEN", "key: TOKEN", ": TOKEN"},
		{"configMapRef:\n            name: redis-client", "configMapRef:\n            name: client", "ConfigMap client"},
		{"        name: redis-lua-", "        name: lua-", "ConfigMap lua-"},
		{"      - emptyDir:\n          sizeLimit: 2Gi\n", "      - persistentVolumeClaim:\n          claimName: snapshot\n", "PersistentVolumeClaim snapshot"},
	} {
		good := stream(t, "demo")
		bad := bytes.Replace(good, []byte(m.old), []byte(m.new), 1)
		if bytes.Equal(bad, good) {
			t.Fatalf("the overlay does not contain %q", m.old)
		}
		objects, err := Decode(bad)
		if err != nil {
			t.Fatal(err)
		}
		if missing := Missing(objects); !slices.ContainsFunc(missing, func(s string) bool { return strings.Contains(s, m.want) }) {
			t.Errorf("missing: %q, want %q", missing, m.want)
		}
	}
}
