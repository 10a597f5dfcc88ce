package layout

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"heavy-read-api/internal/stack/rundir"
)

// PasswordFile is the file in the run folder with the password of the stack's own Redis. Redis listens on the
// loopback interface, which every user of the machine can reach.
const PasswordFile = "redis.password"

// ReadPassword returns the password of the stack's own Redis, "" if an earlier version started it without one.
func ReadPassword(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the password of Redis: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// EnsurePassword returns the password, and generates it where there is none.
func EnsurePassword(path string) (string, error) {
	password, err := ReadPassword(path)
	if err != nil || password != "" {
		return password, err
	}
	password = rand.Text()
	if err := rundir.WriteFile(path, password+"\n"); err != nil {
		return "", fmt.Errorf("remember the password of Redis: %w", err)
	}
	return password, nil
}

// configure writes the password into a configuration file that Redis rewrites, in lines of the form "name %q".
// A new file starts with content. From an existing file it first removes the lines with these names, and all users: in
// the files of earlier versions the default user has no password.
//
// The password is in a file because ps shows arguments to every user.
func configure(path, content, password string, lines ...string) error {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		text, err = []byte(content), nil
	}
	if err != nil {
		return fmt.Errorf("read a configuration of Redis: %w", err)
	}
	var next strings.Builder
	for line := range strings.Lines(string(text)) {
		old := strings.HasPrefix(line, "user ") || slices.ContainsFunc(lines, func(l string) bool {
			return strings.HasPrefix(line, strings.TrimSuffix(l, "%q"))
		})
		if !old {
			next.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	for _, l := range lines {
		fmt.Fprintf(&next, l+"\n", password)
	}
	if err := rundir.WriteFile(path, next.String()); err != nil {
		return fmt.Errorf("write a configuration of Redis: %w", err)
	}
	return nil
}
