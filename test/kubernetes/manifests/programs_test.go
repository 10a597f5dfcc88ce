package manifests

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
)

// programs are those that this repository builds, by the containers that run them. The others are images of other projects.
var programs = map[string]string{"writer": "writer", "reader": "reader", "auditor": "auditor", "failover": "failover"}

// build builds the programs and returns their folder.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "./writer", "./reader", "./auditor", "./failover")
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	return dir
}

// help is what a program says about its settings.
type help struct {
	known map[string]bool
	port  int // default of PORT, 0 if it has none
}

var (
	setting = regexp.MustCompile(`(?m)^  ([A-Z][A-Z0-9_]*), -`)
	portIs  = regexp.MustCompile(`(?s)  PORT, -port\n[^\n]*\(default (\d+)\)`)
)

func askHelp(t *testing.T, program string) help {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, "-help").CombinedOutput()
	if err != nil {
		t.Fatalf("%s -help: %v", program, err)
	}
	h := help{known: map[string]bool{}}
	for _, m := range setting.FindAllSubmatch(out, -1) {
		h.known[string(m[1])] = true
	}
	if m := portIs.FindSubmatch(out); m != nil {
		h.port, _ = strconv.Atoi(string(m[1]))
	}
	return h
}

// checkProgram returns what is wrong with a container that runs a program: a variable that it does not know or accept, and
// a port or a path that it does not serve.
func checkProgram(t *testing.T, bin string, c core.Container, objects []Object, annotations map[string]string) (problems []string) {
	t.Helper()
	h := askHelp(t, bin)
	env := Environment(c, objects)
	listens := map[string]bool{}
	if h.port != 0 {
		listens[strconv.Itoa(h.port)] = true
	}
	var values []string
	for name, value := range env {
		if !h.known[name] {
			problems = append(problems, fmt.Sprintf("%s does not know %s", c.Name, name))
		}
		if name == "REDIS_TLS_CA_FILE" {
			value = certificate(t)
		}
		if strings.HasSuffix(name, "_PORT") {
			listens[value] = true
		}
		values = append(values, name+"="+strings.ReplaceAll(value, " ", "-")) // "secret KEY" as a password
	}
	for _, p := range c.Ports {
		if port := strconv.Itoa(int(p.ContainerPort)); !listens[port] {
			problems = append(problems, fmt.Sprintf("%s does not listen on port %s", c.Name, port))
		}
	}
	if h.port == 0 {
		return problems // a program that only runs once
	}
	port := free(t)
	args := []string{"-host=127.0.0.1", "-port=" + port}
	if h.known["METRICS_PORT"] {
		args = append(args, "-metrics-port=0") // all on one port
	}
	if h.known["CACHE_SNAPSHOT_DIR"] {
		args = append(args, "-cache-snapshot-dir="+t.TempDir())
	}
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = values
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		stop()
		<-ended
	}()
	paths := []string{"/metrics"}
	if p := annotations["prometheus.io/path"]; p != "" {
		paths[0] = p
	}
	for _, p := range []*core.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		if p != nil && p.HTTPGet != nil {
			paths = append(paths, p.HTTPGet.Path)
		}
	}
	for _, path := range paths {
		status, err := get("http://127.0.0.1:"+port+path, ended)
		switch {
		case errors.Is(err, errEnded):
			ended <- err // for the deferred function
			return append(problems, fmt.Sprintf("%s does not accept its environment: %s", c.Name, out.String()))
		case err != nil:
			t.Fatalf("GET %s: %v\n%s", path, err, out.String())
		case status == http.StatusNotFound:
			problems = append(problems, fmt.Sprintf("%s has no %s", c.Name, path))
		}
	}
	return problems
}

var errEnded = errors.New("the program has ended")

// get waits for an answer as long as the program runs, at most 20 s.
func get(url string, ended chan error) (int, error) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		res, err := http.Get(url)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			return res.StatusCode, res.Body.Close()
		}
		if time.Now().After(deadline) {
			return 0, err
		}
		select {
		case <-ended:
			return 0, errEnded
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// free returns a port on which nothing listens.
func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// certificate returns the path of a certificate of a CA.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestProgramsAcceptTheirContainers runs each program with the environment of its container, without Redis, and asks for
// the paths of its probes.
func TestProgramsAcceptTheirContainers(t *testing.T) {
	bin := build(t)
	for _, o := range overlays {
		objects := decode(t, o.name)
		for _, w := range Workloads(objects) {
			for _, c := range w.Template.Spec.Containers {
				program, ok := programs[c.Name]
				if !ok {
					continue
				}
				t.Run(o.name+"/"+c.Name, func(t *testing.T) {
					for _, problem := range checkProgram(t, filepath.Join(bin, program), c, objects, w.Template.Annotations) {
						t.Error(problem)
					}
				})
			}
		}
	}

	for _, b := range []struct{ container, old, new, want string }{
		{"reader", "name: CACHE_MAX_SIZE", "name: CACHE_MAXSIZE", "does not know CACHE_MAXSIZE"},
		{"reader", `value: "536870912"`, `value: 512Mo`, "does not accept its environment"},
		{"writer", `value: "9092"`, `value: "9093"`, "does not listen on port 9092"},
		{"auditor", "containerPort: 9093", "containerPort: 9094", "does not listen on port 9094"},
		{"reader", "path: /ready", "path: /readyz", "has no /readyz"},
		{"auditor", `prometheus.io/port: "9093"`, "prometheus.io/path: /metric", "has no /metric"},
	} {
		t.Run("mistake/"+b.want, func(t *testing.T) {
			good := stream(t, "demo")
			at := bytes.Index(good, []byte("kind: Deployment\nmetadata:\n  labels:\n    app.kubernetes.io/part-of: heavy-read-api\n  name: "+b.container+"\n"))
			if at < 0 || !bytes.Contains(good[at:], []byte(b.old)) {
				t.Fatalf("the overlay does not contain %q", b.old)
			}
			objects, err := Decode(slices.Concat(good[:at], bytes.Replace(good[at:], []byte(b.old), []byte(b.new), 1)))
			if err != nil {
				t.Fatal(err)
			}
			w, c := find(t, objects, b.container)
			problems := checkProgram(t, filepath.Join(bin, programs[b.container]), c, objects, w.Template.Annotations)
			if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, b.want) }) {
				t.Errorf("%q in place of %q is reported as %q, want %q", b.new, b.old, problems, b.want)
			}
		})
	}
}

// TestOtherImages checks the ports and the paths of the images of other projects: those of their configuration or of Compose's checks.
func TestOtherImages(t *testing.T) {
	ports := map[string][]int32{"apisix": {9080, 9091}, "redis": {6379}, "sentinel": {26379}, "redis-exporter": {9121}}
	evidence := map[string]string{
		"apisix 9080": "apisix/config.yaml:port: 9080", "apisix 9091": "apisix/config.yaml:port: 9091",
		"redis 6379": "redis/sentinel.sh:$REDIS_FIRST_PRIMARY 6379", "sentinel 26379": "redis/sentinel.sh:port 26379",
		"redis-exporter 9121": "docker-compose.yaml:127.0.0.1:9121/health", "redis-exporter /health": "docker-compose.yaml:127.0.0.1:9121/health",
	}
	for _, o := range overlays {
		for _, w := range Workloads(decode(t, o.name)) {
			for _, c := range w.Template.Spec.Containers {
				if _, ok := programs[c.Name]; ok {
					continue
				}
				var has []int32
				for _, p := range c.Ports {
					has = append(has, p.ContainerPort)
				}
				for _, p := range []*core.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
					if p != nil && p.HTTPGet != nil && evidence[c.Name+" "+p.HTTPGet.Path] == "" {
						t.Errorf("%s/%s has a probe of %s, which no other file mentions", o.name, c.Name, p.HTTPGet.Path)
					}
				}
				if !slices.Equal(has, ports[c.Name]) {
					t.Errorf("%s/%s has the ports %v, want %v", o.name, c.Name, has, ports[c.Name])
				}
			}
		}
	}
	for port, where := range evidence {
		file, text, _ := strings.Cut(where, ":")
		content, err := os.ReadFile(filepath.Join(repository, file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(content), text) {
			t.Errorf("%s: %s does not contain %q", port, file, text)
		}
	}
}
