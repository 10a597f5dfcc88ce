package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// file is a file of an archive, or a folder.
type file struct {
	name    string // path in the archive, with slashes; the name of a folder ends in one
	mode    int64
	owner   int // user and group
	content []byte
}

// pack returns a compressed tar archive that holds the files in the folder top.
func pack(top string, mtime time.Time, files []file) ([]byte, error) {
	archive, err := archiveOf(top+"/", mtime, files)
	if err != nil {
		return nil, err
	}
	return compress(archive)
}

// archiveOf returns a tar archive of the files, each with a prefix before its name. It depends only on its arguments: files
// are sorted, and have one time.
func archiveOf(prefix string, mtime time.Time, files []file) ([]byte, error) {
	files = slices.SortedFunc(slices.Values(files), func(a, b file) int { return cmp.Compare(a.name, b.name) })
	var packed bytes.Buffer
	archive := tar.NewWriter(&packed)
	for _, f := range files {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: prefix + f.name, Mode: f.mode, Uid: f.owner, Gid: f.owner, Size: int64(len(f.content)), ModTime: mtime,
			Format: tar.FormatPAX,
		}
		if strings.HasSuffix(f.name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// compress returns content in the gzip format, without a name or a time.
func compress(content []byte) ([]byte, error) {
	var packed bytes.Buffer
	compressed, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := compressed.Write(content); err != nil {
		return nil, err
	}
	if err := compressed.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// readTree returns the files in the folder root that match the pattern, and every file below the folders that do, except Go's
// tests.
func readTree(root, pattern string) ([]file, error) {
	matches, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
	if err == nil && len(matches) == 0 {
		err = fmt.Errorf("there is no %s in %s", pattern, root)
	}
	if err != nil {
		return nil, err
	}
	var files []file
	for _, match := range matches {
		err := filepath.WalkDir(match, func(p string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || strings.HasSuffix(p, "_test.go") {
				return err
			}
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			mode := int64(0o644)
			if info.Mode()&0o100 != 0 {
				mode = 0o755
			}
			relative, err := filepath.Rel(root, p)
			files = append(files, file{name: filepath.ToSlash(relative), mode: mode, content: content})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}
