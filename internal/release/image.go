package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is a container image of static binaries and nothing else. The Dockerfile builds the same images; a test compares
// the two.
type image struct {
	name        string
	description string
	programs    []string // folders of the programs; the first one is the entry point
	port        string
	folders     []string // empty folders that belong to the user of the image, so that new volumes do too
}

var images = []image{
	{
		name: "writer", description: "Accepts posts and publishes them to the readers through Redis",
		programs: []string{"writer", "failover", "dashboard"}, port: "8080",
	},
	{
		name: "reader", description: "Serves posts from memory",
		programs: []string{"reader", "auditor"}, port: "80", folders: []string{"snapshot"},
	},
}

// imageUser is the user and the group of the images' processes.
const imageUser = 65532

// healthcheck is what Docker adds to the configuration of an image. Times are in nanoseconds.
type healthcheck struct {
	Test                           []string
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int
}

// config is the configuration of an image.
type config struct {
	v1.Image
	Config containerConfig `json:"config"`
}

type containerConfig struct {
	v1.ImageConfig
	Healthcheck healthcheck
}

// configOf returns the configuration of an image whose only layer has the given digest before compression.
func (r release) configOf(i image, p platform, layer digest.Digest) config {
	binary := "/" + i.programs[0]
	return config{
		Image: v1.Image{
			Created: &r.time, Platform: v1.Platform{OS: p.os, Architecture: p.arch},
			RootFS:  v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer}},
			History: []v1.History{{Created: &r.time, CreatedBy: "make release"}},
		},
		Config: containerConfig{
			ImageConfig: v1.ImageConfig{
				User: fmt.Sprintf("%d:%[1]d", imageUser), ExposedPorts: map[string]struct{}{i.port + "/tcp": {}}, Entrypoint: []string{binary},
				Labels: map[string]string{
					v1.AnnotationTitle: project + "-" + i.name, v1.AnnotationDescription: i.description, v1.AnnotationVersion: r.version,
					v1.AnnotationRevision: r.revision, v1.AnnotationLicenses: "MIT",
				},
			},
			Healthcheck: healthcheck{
				Test: []string{"CMD", binary, "-health"}, Interval: 5 * time.Second, Timeout: 3 * time.Second, StartPeriod: time.Minute, Retries: 3,
			},
		},
	}
}

// imageArchive returns an image of one platform as a tar archive in the OCI image layout, to which manifest.json is added:
// docker load, podman load, ctr images import and skopeo accept it.
func (r release) imageArchive(i image, p platform, files []file) ([]byte, error) {
	for _, folder := range i.folders {
		files = append(files, file{name: folder + "/", mode: 0o755, owner: imageUser})
	}
	layer, err := archiveOf("", r.time, files)
	if err != nil {
		return nil, err
	}
	compressed, err := compress(layer)
	if err != nil {
		return nil, err
	}
	var content []file
	blob := func(mediaType string, blob []byte) v1.Descriptor {
		d := digest.FromBytes(blob)
		content = append(content, file{name: blobName(d), mode: 0o644, content: blob})
		return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(blob))}
	}
	version := specs.Versioned{SchemaVersion: 2}
	text, err := json.Marshal(r.configOf(i, p, digest.FromBytes(layer)))
	if err != nil {
		return nil, err
	}
	manifest := v1.Manifest{
		Versioned: version, MediaType: v1.MediaTypeImageManifest, Config: blob(v1.MediaTypeImageConfig, text),
		Layers: []v1.Descriptor{blob(v1.MediaTypeImageLayerGzip, compressed)},
	}
	if text, err = json.Marshal(manifest); err != nil {
		return nil, err
	}
	number := strings.TrimPrefix(r.version, "v")
	described := blob(v1.MediaTypeImageManifest, text)
	described.Platform = &v1.Platform{OS: p.os, Architecture: p.arch}
	name := project + "-" + i.name + ":" + number
	// The first name is the tag, for skopeo and podman. The second one is that of containerd, and of Docker with containerd's
	// store, which take no name from manifest.json if there is an OCI image layout.
	described.Annotations = map[string]string{v1.AnnotationRefName: number, "io.containerd.image.name": "docker.io/library/" + name}
	for name, value := range map[string]any{
		v1.ImageLayoutFile: v1.ImageLayout{Version: v1.ImageLayoutVersion},
		v1.ImageIndexFile:  v1.Index{Versioned: version, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{described}},
		"manifest.json": []dockerImage{{
			Config: blobName(manifest.Config.Digest), RepoTags: []string{name}, Layers: []string{blobName(manifest.Layers[0].Digest)},
		}},
	} {
		if text, err = json.Marshal(value); err != nil {
			return nil, err
		}
		content = append(content, file{name: name, mode: 0o644, content: text})
	}
	return archiveOf("", r.time, content)
}

// dockerImage is an image in manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func blobName(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }
