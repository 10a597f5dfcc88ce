package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var mount = regexp.MustCompile(`- "?\./([^:\s]+):/`)

// TestMountedFilesExist checks the files that containers mount: Docker creates an empty directory for a missing path.
func TestMountedFilesExist(t *testing.T) {
	content, err := os.ReadFile("../docker-compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mounts := mount.FindAllSubmatch(content, -1)
	if len(mounts) == 0 {
		t.Fatal("docker-compose.yaml mounts nothing")
	}
	for _, m := range mounts {
		if _, err := os.Stat(filepath.Join("..", string(m[1]))); err != nil {
			t.Error(err)
		}
	}
}
