package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
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

// readTree returns the file name in the folder root, or every file below it if it is a folder.
func readTree(root, name string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(filepath.Join(root, filepath.FromSlash(name)), func(p string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, p)
		files = append(files, file{name: filepath.ToSlash(relative), mode: 0o644, content: content})
		return err
	})
	return files, err
}
