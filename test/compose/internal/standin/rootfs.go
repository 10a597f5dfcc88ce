package standin

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// rootfs writes the root file system of an image as a tar archive. Each path is written once; the first one counts.
type rootfs struct {
	archive *tar.Writer
	written map[string]bool
}

// owner is the user and group of a file in an image.
type owner struct{ uid, gid int }

var root owner

// makeImage makes the image name of the files that fill writes. Each change is a line of a Dockerfile.
func makeImage(ctx context.Context, name string, changes []string, fill func(*rootfs) error) error {
	args := []string{"import"}
	for _, change := range changes {
		args = append(args, "--change", change)
	}
	cmd := exec.CommandContext(ctx, "docker", append(args, "-", name)...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return err
	}
	err = pack(stdin, fill)
	stdin.Close() // after an error the archive has no end, and docker refuses it
	if waited := cmd.Wait(); err == nil && waited != nil {
		err = fmt.Errorf("docker import: %w: %s", waited, output.Bytes())
	}
	if err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	return nil
}

// pack writes the archive of a root file system: what every image has, and what fill adds.
func pack(w io.Writer, fill func(*rootfs) error) error {
	r := &rootfs{archive: tar.NewWriter(w), written: make(map[string]bool)}
	if err := r.base(); err != nil {
		return err
	}
	if err := fill(r); err != nil {
		return err
	}
	return r.archive.Close()
}

// base writes what every image has, with the links of Debian's file system.
func (r *rootfs) base() error {
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/etc", "/dev", "/proc", "/sys"} {
		if err := r.dir(dir, 0o755, root); err != nil {
			return err
		}
	}
	if err := r.dir("/tmp", 0o1777, root); err != nil {
		return err
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := r.link("/"+dir, "usr/"+dir); err != nil {
			return err
		}
	}
	if err := r.file("/etc/nsswitch.conf", 0o644, []byte("hosts: files dns\n")); err != nil {
		return err
	}
	return r.file("/etc/passwd", 0o644, []byte("root:x:0:0:root:/:/bin/sh\n"))
}

func (r *rootfs) dir(path string, mode int64, o owner) error {
	return r.write(&tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Mode: mode, Uid: o.uid, Gid: o.gid}, nil)
}

func (r *rootfs) link(path, target string) error {
	return r.write(&tar.Header{Typeflag: tar.TypeSymlink, Name: path, Linkname: target, Mode: 0o777}, nil)
}

func (r *rootfs) file(path string, mode int64, content []byte) error {
	return r.write(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: mode, Size: int64(len(content))}, bytes.NewReader(content))
}

// write adds an entry whose name is an absolute path.
func (r *rootfs) write(header *tar.Header, content io.Reader) error {
	header.Name = header.Name[1:]
	if r.written[header.Name] {
		return nil
	}
	r.written[header.Name] = true
	header.ModTime = time.Unix(0, 0)
	if err := r.archive.WriteHeader(header); err != nil {
		return err
	}
	if content == nil {
		return nil
	}
	_, err := io.Copy(r.archive, content)
	return err
}

// copyFile writes the file that source leads to, through links, as path.
func (r *rootfs) copyFile(source, path string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return r.write(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: int64(info.Mode().Perm()), Size: info.Size()}, f)
}

// copyTree writes what is below source as path, without the directories for which skip returns true.
func (r *rootfs) copyTree(source, path string, skip func(name string) bool) error {
	return filepath.WalkDir(source, func(from string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := path + strings.TrimPrefix(from, source)
		switch {
		case entry.IsDir() && skip(entry.Name()):
			return fs.SkipDir
		case entry.IsDir():
			return r.dir(to, 0o755, root)
		case entry.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(from)
			if err != nil {
				return err
			}
			return r.link(to, target)
		case entry.Type().IsRegular():
			return r.copyFile(from, to)
		}
		return nil
	})
}

func everything(string) bool { return false }

// programs writes programs of this machine and the libraries that they are linked to.
func (r *rootfs) programs(names ...string) error {
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if err := r.copyFile(path, merged(path)); err != nil {
			return err
		}
		libraries, _ := exec.Command("ldd", path).Output() // fails for a static program, which has none
		for field := range strings.FieldsSeq(string(libraries)) {
			if !strings.HasPrefix(field, "/") {
				continue
			}
			if err := r.copyFile(field, merged(field)); err != nil {
				return err
			}
		}
	}
	return nil
}

// merged returns where a path of this machine is in the image, whose /bin, /sbin, /lib and /lib64 are links into /usr.
func merged(path string) string {
	for _, dir := range []string{"/bin/", "/sbin/", "/lib/", "/lib64/"} {
		if strings.HasPrefix(path, dir) {
			return "/usr" + path
		}
	}
	return path
}

// applets writes busybox and these of its commands, as Alpine has them.
func (r *rootfs) applets(commands ...string) error {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	if err := r.copyFile(path, "/usr/bin/busybox"); err != nil {
		return err
	}
	for _, command := range commands {
		if err := r.link("/usr/bin/"+command, "busybox"); err != nil {
			return err
		}
	}
	return nil
}
