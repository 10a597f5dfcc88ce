package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"

	"heavy-read-api/test/compose/internal/gobuild"
	"heavy-read-api/test/compose/internal/progress"
)

const composeVersion = "v2.40.3"

// Compose makes sure that docker has the Compose plugin. Where it is missing, Compose is compiled from its Go module
// into a Docker configuration of its own in dir, and DOCKER_CONFIG is set.
func Compose(ctx context.Context, dir string) error {
	version, err := exec.CommandContext(ctx, "docker", "compose", "version").Output()
	if err != nil {
		config := filepath.Join(dir, "config")
		plugins := filepath.Join(config, "cli-plugins")
		if err := os.MkdirAll(plugins, 0o755); err != nil {
			return err
		}
		err := progress.During("compiling Docker Compose (about five minutes the first time)", func() error {
			return gobuild.Build(ctx, gobuild.Program{
				Package: "github.com/docker/compose/v2/cmd", Version: composeVersion,
				Ldflags: "-X github.com/docker/compose/v2/internal.Version=" + composeVersion,
			}, filepath.Join(plugins, "docker-compose"))
		})
		if err != nil {
			return err
		}
		if err := os.Setenv("DOCKER_CONFIG", config); err != nil {
			return err
		}
		if version, err = exec.CommandContext(ctx, "docker", "compose", "version").Output(); err != nil {
			return err
		}
	}
	progress.Printf("%s", bytes.TrimSpace(version))
	return nil
}

// Plugin returns the path of the Compose plugin in the Docker configuration.
func Plugin() string { return filepath.Join(configDir(), "cli-plugins", "docker-compose") }

func configDir() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home, _ := os.UserHomeDir()
	return filepath.Join(home, ".docker")
}

// SetProxy writes a Docker configuration with this HTTP proxy, which docker passes to every container, into dir and
// sets DOCKER_CONFIG. The plugins stay.
func SetProxy(dir, proxy string) error {
	config := filepath.Join(dir, "proxied")
	if err := os.Mkdir(config, 0o755); err != nil {
		return err
	}
	plugins := filepath.Join(configDir(), "cli-plugins")
	if _, err := os.Stat(plugins); err == nil {
		if err := os.Symlink(plugins, filepath.Join(config, "cli-plugins")); err != nil {
			return err
		}
	}
	content, err := json.Marshal(map[string]any{"proxies": map[string]any{"default": map[string]string{"httpProxy": proxy}}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(config, "config.json"), content, 0o600); err != nil {
		return err
	}
	return os.Setenv("DOCKER_CONFIG", config)
}
