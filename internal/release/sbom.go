package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"runtime"
	"strings"
	"time"
)

// bom is an SBOM in the format CycloneDX 1.6, as far as it describes Go modules. It has no serial number and the time of
// the commit, so that two builds of a commit write the same SBOM.
type bom struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []component `json:"components"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PackageURL string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// sbom lists the modules that are linked into the programs of an archive, and Go's library.
func (r release) sbom(archive string, programs []string, linked modules) ([]byte, error) {
	version, _, _ := strings.Cut(strings.TrimPrefix(runtime.Version(), "go"), " ") // without the experiments of this build
	b := bom{
		Format: "CycloneDX", Spec: "1.6", Version: 1,
		Metadata: metadata{r.time.Format(time.RFC3339), component{
			Ref: archive, Type: "application", Name: project, Version: r.version,
			Properties: []property{{project + ":revision", r.revision}, {project + ":programs", strings.Join(programs, " ")}},
		}},
		Components: []component{library("stdlib", version, "")},
	}
	for _, m := range linked.sorted() {
		if m.Replace != nil {
			m = m.Replace
		}
		b.Components = append(b.Components, library(m.Path, m.Version, m.Sum))
	}
	text, err := json.MarshalIndent(b, "", "  ")
	return append(text, '\n'), err
}

// library describes a module. sum is its sum in go.sum: "h1:" and the SHA-256 of the list of its files, in base64.
func library(path, version, sum string) component {
	url := "pkg:golang/" + path + "@" + version
	c := component{Ref: url, Type: "library", Name: path, Version: version, PackageURL: url}
	if encoded, ok := strings.CutPrefix(sum, "h1:"); ok {
		if digest, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			c.Hashes = []hash{{"SHA-256", hex.EncodeToString(digest)}}
		}
	}
	return c
}
