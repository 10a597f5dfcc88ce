package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

// modules are the linked modules by path. A path has one version, because all programs share one go.mod.
type modules map[string]*debug.Module

func (m modules) add(info *debug.BuildInfo) {
	for _, d := range info.Deps {
		m[d.Path] = d
	}
}

// sorted returns the modules in the order of their paths.
func (m modules) sorted() []*debug.Module {
	var all []*debug.Module
	for _, p := range slices.Sorted(maps.Keys(m)) {
		all = append(all, m[p])
	}
	return all
}

var licenceName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

// licences returns the licence files of the linked modules, also of code that they copied from elsewhere into folders of their
// own, and of Go, whose library is linked too.
func (r release) licences(linked modules) ([]file, error) {
	folders, err := r.moduleFolders(linked)
	if err != nil {
		return nil, err
	}
	goroot, err := r.goCommand("env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	const golang = "go"
	folders[golang] = strings.TrimSpace(string(goroot))
	var files []file
	for module, folder := range folders {
		found := false
		err := filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && (module == golang && name != folder || entry.Name() == "testdata"):
				return fs.SkipDir // the rest of Go is its tools
			case !entry.Type().IsRegular() || !licenceName.MatchString(entry.Name()) || strings.HasSuffix(name, ".go"):
				return nil
			}
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(folder, name)
			files = append(files, file{name: path.Join("licences", module, filepath.ToSlash(relative)), mode: 0o644, content: content})
			found = found || filepath.Dir(name) == filepath.Clean(folder)
			return err
		})
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, fmt.Errorf("module %s has no licence file in %s: it must not be distributed without one", module, folder)
		}
	}
	return files, nil
}

// moduleFolders returns the folders of the sources of the modules.
func (r release) moduleFolders(linked modules) (map[string]string, error) {
	list := r.goCommand(append([]string{"list", "-m", "-json"}, slices.Sorted(maps.Keys(linked))...)...)
	out, err := list.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := list.Start(); err != nil {
		return nil, err
	}
	folders := make(map[string]string)
	decoder := json.NewDecoder(out)
	for err == nil {
		var m struct{ Path, Dir string }
		if err = decoder.Decode(&m); err == nil {
			folders[m.Path] = m.Dir
		}
	}
	_, _ = io.Copy(io.Discard, out)
	if waited := list.Wait(); waited != nil {
		return nil, fmt.Errorf("go list -m: %w", waited)
	}
	if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("go list -m: %w", err)
	}
	return folders, nil
}
