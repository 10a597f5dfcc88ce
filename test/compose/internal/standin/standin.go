// Package standin makes the images of docker-compose.yaml, under their pinned names, from Debian's packages and Go
// modules, for machines that cannot pull images.
package standin

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"heavy-read-api/test/compose/internal/gobuild"
	"heavy-read-api/test/compose/internal/progress"
	"heavy-read-api/test/redis/debian"
)

// fetchTimeout bounds the fetch of Redis 8, and separately the build of Prometheus. After that the installed program is
// used.
const fetchTimeout = 5 * time.Minute

// RedisImage is the image of Redis.
const RedisImage = "redis:8.2.3-alpine"

// Build makes the images. The working directory must be the repository's folder; dir takes temporary files. Build
// returns the names and versions of the programs that stand in for those of the real images.
func Build(ctx context.Context, dir string) ([]string, error) {
	var used []string
	for _, image := range []struct {
		name string
		make func(ctx context.Context, dir string) (string, error)
	}{
		{"golang", makeGolang},
		{"Redis", makeRedis},
		{"redis_exporter", makeExporter},
		{"Prometheus", makePrometheus},
		{"APISIX", makeApisix},
	} {
		var program string
		err := progress.During("making the image of "+image.name, func() (err error) {
			program, err = image.make(ctx, dir)
			return err
		})
		if err != nil {
			return nil, err
		}
		if program != "" {
			progress.Printf("image of %s: %s", image.name, program)
			used = append(used, program)
		}
	}
	return used, nil
}

func makeGolang(ctx context.Context, _ string) (string, error) {
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	source := string(bytes.TrimSpace(goroot))
	changes := []string{"ENV PATH=/usr/local/go/bin:/usr/bin", "ENV GOPATH=/go", "ENV GOTOOLCHAIN=local", "WORKDIR /go"}
	return "", makeImage(ctx, "golang:1.26-alpine", changes, func(r *rootfs) error {
		if err := r.applets("sh", "mkdir", "cat", "env"); err != nil {
			return err
		}
		if err := r.dir("/go", 0o755, root); err != nil {
			return err
		}
		if err := r.copyFile("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt"); err != nil {
			return err
		}
		for _, part := range []string{"VERSION", "go.env", "bin", "pkg/include", "pkg/tool", "src", "lib"} {
			err := r.copyTree(filepath.Join(source, part), "/usr/local/go/"+part, func(name string) bool { return name == "testdata" })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// makeRedis uses Redis 8 of a newer Debian, or else the installed one.
func makeRedis(ctx context.Context, _ string) (string, error) {
	bounded, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	server, fetchErr := debian.Fetch(bounded, "forky", "redis")
	used := server.Name + " of Debian forky"
	if fetchErr != nil {
		version, err := exec.CommandContext(ctx, "redis-server", "--version").Output()
		if err != nil {
			return "", err
		}
		used = fmt.Sprintf("the installed %s (%v)", bytes.TrimSpace(version), fetchErr)
	}
	changes := []string{"WORKDIR /data", "VOLUME /data", `CMD ["redis-server"]`}
	return used, makeImage(ctx, RedisImage, changes, func(r *rootfs) error {
		if fetchErr != nil {
			if err := r.programs("redis-server", "redis-cli"); err != nil {
				return err
			}
		} else if err := r.unpacked(server); err != nil {
			return err
		}
		if err := r.applets("sh", "sed", "sha1sum", "sha256sum", "cut", "dirname", "cat", "mv", "tail", "sort", "xargs"); err != nil {
			return err
		}
		return r.dir("/data", 0o755, owner{999, 1000})
	})
}

// unpacked writes a fetched server to /redis, with wrappers that run it.
func (r *rootfs) unpacked(server debian.Server) error {
	if err := r.copyTree(server.Root, "/redis", everything); err != nil {
		return err
	}
	for _, program := range []string{"redis-server", "redis-cli"} {
		script := debian.Wrapper("/redis", server.Loader, "usr/bin/"+program)
		if err := r.file("/usr/bin/"+program, 0o755, []byte(script)); err != nil {
			return err
		}
	}
	return nil
}

func makeExporter(ctx context.Context, _ string) (string, error) {
	changes := []string{"USER 59000:59000", `ENTRYPOINT ["/redis_exporter"]`}
	return "", makeImage(ctx, "oliver006/redis_exporter:v1.80.1-alpine", changes, func(r *rootfs) error {
		if err := r.programs("prometheus-redis-exporter"); err != nil {
			return err
		}
		if err := r.applets("wget"); err != nil {
			return err
		}
		return r.link("/redis_exporter", "usr/bin/prometheus-redis-exporter")
	})
}

// makePrometheus uses the pinned version of Prometheus, without its web pages, if it builds in time, else the installed
// one.
func makePrometheus(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "prometheus")
	bounded, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	buildErr := gobuild.Build(bounded, gobuild.Program{
		Package: "github.com/prometheus/prometheus/cmd/prometheus", Version: "v0.305.0",
		Ldflags: "-X github.com/prometheus/common/version.Version=3.5.0",
	}, program)
	if buildErr != nil {
		var err error
		if program, err = exec.LookPath("prometheus"); err != nil {
			return "", fmt.Errorf("%w: %w", err, buildErr)
		}
	}
	version, err := exec.CommandContext(ctx, program, "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("prometheus --version: %w: %s", err, version)
	}
	used, _, _ := strings.Cut(string(version), " (")
	if buildErr != nil {
		used = "the installed " + used
	}
	changes := []string{
		"USER nobody", "WORKDIR /prometheus", "VOLUME /prometheus", `ENTRYPOINT ["/bin/prometheus"]`,
		`CMD ["--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"]`,
	}
	return used, makeImage(ctx, "prom/prometheus:v3.5.0", changes, func(r *rootfs) error {
		if buildErr != nil {
			if err := r.programs("prometheus"); err != nil {
				return err
			}
		} else if err := r.copyFile(program, "/usr/bin/prometheus"); err != nil {
			return err
		}
		if err := r.applets("sh", "wget"); err != nil {
			return err
		}
		return r.dir("/prometheus", 0o755, owner{65534, 65534})
	})
}

// makeApisix uses the local gateway instead of APISIX, with the real nodes.sh and Debian's shell and tools.
func makeApisix(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "apisix")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./test/compose/apisix")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the stand-in gateway: %w: %s", err, output)
	}
	apisix := owner{636, 636}
	changes := []string{
		"USER 636", "WORKDIR /usr/local/apisix", `ENTRYPOINT ["/docker-entrypoint.sh"]`, `CMD ["docker-start"]`,
	}
	return "the local gateway instead of APISIX", makeImage(ctx, "apache/apisix:3.18.0-debian", changes, func(r *rootfs) error {
		err := r.programs("bash", "sh", "getent", "timeout", "sort", "mv", "ln", "cat", "date", "sleep", "dirname", "sed", "grep",
			"rm", "mkdir", "id", "head", "tail", "readlink")
		if err != nil {
			return err
		}
		for _, dir := range []string{"/usr/local/apisix", "/usr/local/apisix/conf", "/usr/local/apisix/logs"} {
			if err := r.dir(dir, 0o755, apisix); err != nil {
				return err
			}
		}
		return r.copyFile(program, "/docker-entrypoint.sh")
	})
}
