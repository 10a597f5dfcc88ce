package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// checkImage checks an archive of the image of the writer: that each digest is of the content that it names, and that the
// files are there.
func checkImage(t *testing.T, archive []byte) {
	t.Helper()
	files := filesOf(t, bytes.NewReader(archive))
	for name, content := range files {
		if sum, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && digest.FromBytes(content).Encoded() != sum {
			t.Errorf("%s has another digest", name)
		}
	}
	parse := func(name string, into any) {
		t.Helper()
		if err := json.Unmarshal(files[name], into); err != nil {
			t.Fatalf("%s: %v in %q", name, err, files[name])
		}
	}
	var index v1.Index
	parse("index.json", &index)
	if len(index.Manifests) != 1 || index.Manifests[0].Platform.Architecture != "arm64" {
		t.Fatalf("the index is %s", files["index.json"])
	}
	if name := index.Manifests[0].Annotations["io.containerd.image.name"]; name != "docker.io/library/heavy-read-api-writer:1.2.3" {
		t.Errorf("containerd names the image %q", name)
	}
	var manifest v1.Manifest
	parse(blobName(index.Manifests[0].Digest), &manifest)
	var docker []dockerImage
	parse("manifest.json", &docker)
	if len(docker) != 1 || docker[0].Config != blobName(manifest.Config.Digest) || !slices.Equal(docker[0].RepoTags, []string{"heavy-read-api-writer:1.2.3"}) ||
		!slices.Equal(docker[0].Layers, []string{blobName(manifest.Layers[0].Digest)}) {
		t.Errorf("manifest.json does not name the blobs of the manifest: %s", files["manifest.json"])
	}
	var c config
	parse(blobName(manifest.Config.Digest), &c)
	layer := files[blobName(manifest.Layers[0].Digest)]
	if int64(len(layer)) != manifest.Layers[0].Size || c.Architecture != "arm64" || c.OS != "linux" || c.Config.Entrypoint[0] != "/writer" {
		t.Errorf("configuration %+v, layer of %d bytes", c, len(layer))
	}
	content := unpack(t, layer)
	for _, file := range []string{"writer", "failover", "dashboard", "LICENSE", "licences/go/LICENSE", "licences/github.com/redis/go-redis/v9/LICENSE"} {
		if len(content[file]) == 0 {
			t.Errorf("the image has no %s", file)
		}
	}
}

// The images of a release are those that the Dockerfile builds.
func TestImagesAreThoseOfTheDockerfile(t *testing.T) {
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	dockerfile := string(text)
	for _, i := range images {
		_, stage, _ := strings.Cut(dockerfile, "\nFROM scratch AS "+i.name+"\n")
		stage, _, _ = strings.Cut(stage, "\nFROM ")
		c := release{version: "$VERSION", revision: "$REVISION"}.configOf(i, platform{}, "").Config
		h := c.Healthcheck
		want := []string{
			"COPY --from=build /out/" + strings.Join(i.programs, " /out/") + " /\n",
			"USER " + c.User + "\n",
			"EXPOSE " + i.port + "\n",
			fmt.Sprintf("ENTRYPOINT [%q]", c.Entrypoint[0]),
			fmt.Sprintf("HEALTHCHECK --interval=%gs --timeout=%gs --retries=%d --start-period=%gs CMD [%q, %q]\n",
				h.Interval.Seconds(), h.Timeout.Seconds(), h.Retries, h.StartPeriod.Seconds(), h.Test[1], h.Test[2]),
		}
		for _, folder := range i.folders {
			want = append(want, fmt.Sprintf("COPY --from=build --chown=%d:%[1]d /empty /%s\n", imageUser, folder))
		}
		for name, value := range c.Labels {
			want = append(want, fmt.Sprintf("%s=%q", name, value))
		}
		for _, line := range want {
			if !strings.Contains(stage, line) {
				t.Errorf("the %s in the Dockerfile does not have %q:\n%s", i.name, line, stage)
			}
		}
		if found := strings.Count(stage, "COPY "); found != 1+len(i.folders) {
			t.Errorf("the %s in the Dockerfile has %d COPY lines, the release's has %d", i.name, found, 1+len(i.folders))
		}
		if found := strings.Count(stage, "org.opencontainers."); found != len(c.Labels) {
			t.Errorf("the %s in the Dockerfile has %d labels, the release's has %d", i.name, found, len(c.Labels))
		}
	}
}

// The Dockerfile builds images for other processors without emulation: the builder runs on the platform of the machine and
// compiles for that of the image.
func TestDockerfileCrossCompiles(t *testing.T) {
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`(?m)^FROM --platform=\$BUILDPLATFORM golang:\S+ AS build$`, `(?m)^ARG TARGETOS\nARG TARGETARCH$`, `GOOS=\$TARGETOS GOARCH=\$TARGETARCH go build `} {
		if !regexp.MustCompile(line).Match(text) {
			t.Errorf("the Dockerfile has no line that matches %s", line)
		}
	}
	for _, stage := range images {
		if !bytes.Contains(text, []byte("\nFROM scratch AS "+stage.name+"\n")) {
			t.Errorf("the stage of the %s runs a program: it needs the platform of the image", stage.name)
		}
	}
}
