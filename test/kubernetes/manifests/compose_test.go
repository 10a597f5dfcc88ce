package manifests

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const repository = "../../.."

// service is a service of Compose, limited to what has a counterpart here.
type service struct {
	Image       string
	User        string
	Entrypoint  []string
	Environment map[string]string
	Volumes     []string
	Tmpfs       []string
	Ports       ports
	MemLimit    string `yaml:"mem_limit"`
	Grace       string `yaml:"stop_grace_period"`
	Healthcheck struct{ Test []string }
	Extends     struct{ Service string }
}

// ports are published ports; the tag !reset removes those of the file before.
type ports struct {
	list  []string
	reset bool
}

func (p *ports) UnmarshalYAML(node *yaml.Node) error {
	p.reset = node.Tag == "!reset"
	node.Tag = ""
	return node.Decode(&p.list)
}

// compose returns the services of Compose files, later files over earlier ones.
func compose(t *testing.T, files ...string) map[string]service {
	t.Helper()
	all := map[string]service{}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(repository, file))
		if err != nil {
			t.Fatal(err)
		}
		var parsed struct{ Services map[string]service }
		if err := yaml.Unmarshal(content, &parsed); err != nil {
			t.Fatal(err)
		}
		earlier := maps.Clone(all) // the files that services extend
		for name, s := range parsed.Services {
			base, ok := earlier[name]
			if !ok {
				base = earlier[s.Extends.Service]
			}
			all[name] = base.with(s)
		}
	}
	return all
}

// with returns the service with the settings of another one over its own.
func (s service) with(o service) service {
	environment := maps.Clone(s.Environment)
	if environment == nil {
		environment = map[string]string{}
	}
	maps.Copy(environment, o.Environment)
	s.Environment = environment
	set(&s.Image, o.Image)
	set(&s.User, o.User)
	set(&s.MemLimit, o.MemLimit)
	set(&s.Grace, o.Grace)
	if o.Entrypoint != nil {
		s.Entrypoint = o.Entrypoint
	}
	if o.Healthcheck.Test != nil {
		s.Healthcheck = o.Healthcheck
	}
	s.Volumes = slices.Concat(s.Volumes, o.Volumes)
	s.Tmpfs = slices.Concat(s.Tmpfs, o.Tmpfs)
	if o.Ports.reset {
		s.Ports.list = nil
	}
	s.Ports.list = slices.Concat(s.Ports.list, o.Ports.list)
	return s
}

func set(to *string, value string) {
	if value != "" {
		*to = value
	}
}

// counterparts are the containers that run a service of Compose.
var counterparts = []struct{ overlay, container, service string }{
	{"demo", "redis", "redis"},
	{"demo", "writer", "writer"},
	{"demo", "reader", "reader"},
	{"demo", "auditor", "auditor"},
	{"demo", "redis-exporter", "redis-exporter"},
	{"demo", "apisix", "apisix"},
	{"sentinel", "redis", "redis-2"},
	{"sentinel", "sentinel", "sentinel-1"},
	{"sentinel", "writer", "writer"},
	{"sentinel", "reader", "reader"},
	{"sentinel", "auditor", "auditor"},
	{"sentinel", "failover", "failover"},
	{"external", "writer", "writer"},
	{"external", "reader", "reader"},
	{"external", "auditor", "auditor"},
}

// differences are the settings that Compose and Kubernetes do not have in common, by overlay (* for all), container and
// name.
var differences = map[string]string{
	"* writer READER_URL":                                  "the gateway's URL is unknown; the writer answers GET with 405",
	"* auditor AUDIT_READERS":                              "there is no reader-direct",
	"sentinel writer WRITE_REPLICAS":                       "0 is the default of the program",
	"sentinel reader REDIS_READ_FROM":                      "primary is the default of the program",
	"sentinel redis entrypoint":                            "address.sh, which runs start.sh",
	"sentinel redis mount /etc/redis-address":              "the same",
	"sentinel redis file /etc/redis-address/address.sh":    "the same",
	"sentinel redis REDIS_ADDRESS":                         "the name of a Pod; address.sh replaces it",
	"sentinel redis REDIS_FIRST_PRIMARY":                   "the same",
	"sentinel sentinel entrypoint":                         "as for redis",
	"sentinel sentinel mount /etc/redis-address":           "as for redis",
	"sentinel sentinel file /etc/redis-address/address.sh": "as for redis",
	"sentinel sentinel SENTINEL_ADDRESS":                   "as for redis",
	"sentinel sentinel REDIS_FIRST_PRIMARY":                "as for redis",
	"sentinel sentinel mount /etc/redis-lua":               "a Sentinel loads no script; Compose extends the service redis",
	"sentinel sentinel file /etc/redis-lua/read.lua":       "the same",
	"sentinel sentinel file /etc/redis-lua/step.lua":       "the same",
	"sentinel writer REDIS_ADDR":                           "the Sentinels have names instead of fixed addresses",
	"sentinel reader REDIS_ADDR":                           "the same",
	"sentinel auditor REDIS_ADDR":                          "the same",
	"sentinel failover REDIS_ADDR":                         "the same",
	"sentinel failover CACHE_LOG_LENGTH":                   "of the writer, which Compose extends",
	"sentinel failover CONSISTENCY_COOKIE":                 "the same",
	"sentinel failover LOG_LEVEL":                          "the same",
	"sentinel failover METRICS_PORT":                       "the same",
	"sentinel failover READER_URL":                         "the same",
	"sentinel failover WRITER_TOKEN":                       "the same",
	"external writer REDIS_ADDR":                           "another Redis, with TLS",
	"external writer REDIS_TLS":                            "the same",
	"external writer REDIS_TLS_CA_FILE":                    "the same",
	"external reader REDIS_ADDR":                           "the same",
	"external reader REDIS_TLS":                            "the same",
	"external reader REDIS_TLS_CA_FILE":                    "the same",
	"external auditor REDIS_ADDR":                          "the same",
	"external auditor REDIS_TLS":                           "the same",
	"external auditor REDIS_TLS_CA_FILE":                   "the same",
}

// variable is a value from .env: ${NAME:-default}.
var variable = regexp.MustCompile(`\$\{(\w+):-((?:[^{}]|\$\{[^{}]*\})*)\}`)

// TestComposeAgrees compares what containers of both have in common: images, commands, users, environment, ports, memory,
// files, volumes in memory, health checks and the time for a stop. Values of .env have their defaults, and a password has
// the name of the key in the Secret.
func TestComposeAgrees(t *testing.T) {
	used := map[string]bool{}
	for _, c := range counterparts {
		t.Run(c.overlay+"/"+c.container, func(t *testing.T) {
			files := []string{"docker-compose.yaml"}
			if c.overlay == "sentinel" {
				files = append(files, "docker-compose.sentinel.yaml")
			}
			s, ok := compose(t, files...)[c.service]
			if !ok {
				t.Fatalf("there is no service %s", c.service)
			}
			objects := decode(t, c.overlay)
			w, container := find(t, objects, c.container)
			want, got := s.settings(t), settings(w, container, objects)
			for name := range got { // Compose need not publish a port, nor set the user of an image
				if want[name] == "" && (strings.HasPrefix(name, "port ") || name == "user") {
					delete(got, name)
				}
			}
			for _, name := range slices.Sorted(maps.Keys(union(want, got))) {
				if want[name] == got[name] {
					continue
				}
				known := ""
				for _, key := range []string{c.overlay + " " + c.container + " " + name, "* " + c.container + " " + name} {
					if _, ok := differences[key]; ok {
						known = key
					}
				}
				if used[known] = true; known == "" {
					t.Errorf("%s is %q in Compose and %q here", name, want[name], got[name])
				}
			}
			for _, before := range w.Template.Spec.InitContainers { // it copies files of the same image
				if before.Image != container.Image {
					t.Errorf("the init container %s has the image %s, and not %s", before.Name, before.Image, container.Image)
				}
			}
			grace, err := time.ParseDuration(s.Grace)
			if pod := w.Template.Spec; err == nil && pod.TerminationGracePeriodSeconds != nil {
				left := *pod.TerminationGracePeriodSeconds
				if container.Lifecycle != nil {
					left -= container.Lifecycle.PreStop.Sleep.Seconds
				}
				if time.Duration(left)*time.Second < grace {
					t.Errorf("a stop has %d s after preStop, and %v in Compose", left, grace)
				}
			}
		})
	}
	for key := range differences {
		if !used[key] {
			t.Errorf("the difference %q is gone: remove it from the list", key)
		}
	}
}

func union(maps ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range maps {
		for k := range m {
			all[k] = ""
		}
	}
	return all
}

func find(t *testing.T, objects []Object, name string) (Workload, core.Container) {
	t.Helper()
	for _, w := range Workloads(objects) {
		for _, c := range w.Template.Spec.Containers {
			if c.Name == name {
				return w, c
			}
		}
	}
	t.Fatalf("there is no container %s", name)
	return Workload{}, core.Container{}
}

// settings returns a service as text, by the names that settings of a container have too.
func (s service) settings(t *testing.T) map[string]string {
	all := map[string]string{
		"image":      strings.SplitN(s.Image, "@", 2)[0],
		"entrypoint": strings.Join(s.Entrypoint, " "),
		"memory":     quantity(s.MemLimit),
	}
	if s.User != "" {
		all["user"] = s.User
	}
	if test := s.Healthcheck.Test; len(test) > 0 && !slices.Contains(test, "wget") && !slices.Contains(test, "-health") {
		all["healthcheck"] = strings.Join(test[1:], " ")
	}
	for name, value := range s.Environment {
		// A variable that is empty by default is an unset one; Kubernetes has those that are passwords.
		secret := variable.FindStringSubmatch(value)
		switch {
		case secret != nil && (strings.Contains(secret[1], "PASSWORD") || secret[1] == "WRITER_TOKEN"):
			all[name] = "secret " + secret[1]
		case defaults(value) != "":
			all[name] = defaults(value)
		}
	}
	for _, port := range s.Ports.list {
		all["port "+port[strings.LastIndex(port, ":")+1:]] = "yes"
	}
	for _, v := range s.Volumes {
		from, to, _ := strings.Cut(strings.TrimSuffix(v, ":ro"), ":")
		if !strings.HasPrefix(from, "./") {
			all["mount "+to] = "volume"
			continue
		}
		all["mount "+to] = "files"
		info, err := os.Stat(filepath.Join(repository, from))
		if err != nil {
			t.Fatal(err)
		}
		if !info.IsDir() {
			content, err := os.ReadFile(filepath.Join(repository, from))
			if err != nil {
				t.Fatal(err)
			}
			all["file "+to] = string(content)
			continue
		}
		for _, name := range needed(t, from) {
			content, err := os.ReadFile(filepath.Join(repository, from, name))
			if err != nil {
				t.Fatal(err)
			}
			all["file "+path.Join(to, name)] = string(content)
		}
	}
	for _, v := range s.Tmpfs {
		to, options, _ := strings.Cut(v, ":")
		_, size, _ := strings.Cut(options, "size=")
		all["mount "+to] = "memory " + quantity(size)
	}
	return all
}

// needed returns the files of a mounted folder that its containers use.
func needed(t *testing.T, folder string) (names []string) {
	entries, err := os.ReadDir(filepath.Join(repository, folder))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, ".go") || name == "kustomization.yaml" ||
			filepath.Ext(name) == ".lua" && name != "read.lua" && name != "step.lua" { // health.sh loads these two
			continue
		}
		names = append(names, name)
	}
	return names
}

// settings returns a container as text, by the names of service.settings.
func settings(w Workload, c core.Container, objects []Object) map[string]string {
	pod := w.Template.Spec
	all := map[string]string{
		"image":      strings.TrimSuffix(c.Image, ":devel"),
		"entrypoint": strings.Join(c.Command, " "),
		"memory":     c.Resources.Limits.Memory().String(),
	}
	if strings.Contains(all["image"], "/") || strings.HasPrefix(all["image"], "redis:") {
		all["user"] = fmt.Sprintf("%d:%d", *pod.SecurityContext.RunAsUser, *pod.SecurityContext.RunAsGroup)
	}
	if c.ReadinessProbe != nil && c.ReadinessProbe.Exec != nil {
		all["healthcheck"] = strings.Join(c.ReadinessProbe.Exec.Command, " ")
	}
	for name, value := range Environment(c, objects) {
		all[name] = value
	}
	for _, p := range c.Ports {
		all["port "+strconv.Itoa(int(p.ContainerPort))] = "yes"
	}
	for _, m := range c.VolumeMounts {
		v := pod.Volumes[max(0, slices.IndexFunc(pod.Volumes, func(v core.Volume) bool { return v.Name == m.Name }))]
		name := "mount " + m.MountPath
		switch {
		case slices.Contains(w.Claims, m.Name):
			all[name] = "volume"
		case v.EmptyDir != nil && v.EmptyDir.Medium == core.StorageMediumMemory:
			all[name] = "memory " + v.EmptyDir.SizeLimit.String()
		case v.EmptyDir != nil:
			all[name] = "volume"
		case v.ConfigMap != nil:
			all[name] = "files"
			for _, o := range objects {
				files, ok := o.(*core.ConfigMap)
				if !ok || files.Name != v.ConfigMap.Name {
					continue
				}
				if m.SubPath != "" {
					all["file "+m.MountPath] = files.Data[m.SubPath]
					continue
				}
				for file, content := range files.Data {
					all["file "+path.Join(m.MountPath, file)] = content
				}
			}
		}
	}
	return all
}

// Environment returns the variables of a container. That of a Secret is "secret KEY", that of a field "field PATH".
func Environment(c core.Container, objects []Object) map[string]string {
	all := map[string]string{}
	for _, from := range c.EnvFrom {
		for _, o := range objects {
			if m, ok := o.(*core.ConfigMap); ok && from.ConfigMapRef != nil && m.Name == from.ConfigMapRef.Name {
				maps.Copy(all, m.Data)
			}
		}
	}
	for _, e := range c.Env {
		switch {
		case e.ValueFrom == nil:
			all[e.Name] = e.Value
		case e.ValueFrom.SecretKeyRef != nil:
			all[e.Name] = "secret " + e.ValueFrom.SecretKeyRef.Key
		case e.ValueFrom.FieldRef != nil:
			all[e.Name] = "field " + e.ValueFrom.FieldRef.FieldPath
		}
	}
	return all
}

// defaults returns a value of Compose with the defaults of its variables.
func defaults(value string) string {
	for variable.MatchString(value) {
		value = variable.ReplaceAllString(value, "$2")
	}
	return value
}

// quantity returns a size of Compose, such as 768m, as Kubernetes writes it.
func quantity(size string) string {
	if size == "" {
		return ""
	}
	number, unit := size[:len(size)-1], strings.ToUpper(size[len(size)-1:])
	q := resource.MustParse(number + unit + "i")
	return q.String()
}
