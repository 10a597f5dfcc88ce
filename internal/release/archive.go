package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// file is a file of an archive.
type file struct {
	name    string // path in the archive, with slashes
	mode    int64
	content []byte
}

// pack returns a compressed tar archive that holds the files in the folder top. It depends only on its arguments: files are
// sorted and have one time and no owner, and the gzip header has neither a name nor a time.
func pack(top string, mtime time.Time, files []file) ([]byte, error) {
	files = slices.SortedFunc(slices.Values(files), func(a, b file) int { return cmp.Compare(a.name, b.name) })
	var packed bytes.Buffer
	compressed, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	archive := tar.NewWriter(compressed)
	for _, f := range files {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: path.Join(top, f.name), Mode: f.mode, Size: int64(len(f.content)), ModTime: mtime,
			Format: tar.FormatPAX,
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
		files = append(files, file{filepath.ToSlash(relative), 0o644, content})
		return err
	})
	return files, err
}
