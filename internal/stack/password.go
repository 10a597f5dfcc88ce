package stack

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// passwordFile is the file in the run folder with the password of the stack's own Redis. It listens on the
// loopback, which every user of the machine reaches; who may read the file may use it.
const passwordFile = "redis.password"

// readPassword returns the password of the stack's own Redis, "" when the stack that started it knew none.
func readPassword(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the password of Redis: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// ensurePassword is readPassword, and makes one up where there is none.
func ensurePassword(path string) (string, error) {
	password, err := readPassword(path)
	if err != nil || password != "" {
		return password, err
	}
	password = rand.Text()
	if err := replaceFile(path, password+"\n"); err != nil {
		return "", fmt.Errorf("remember the password of Redis: %w", err)
	}
	return password, nil
}

// configure gives a configuration file that Redis rewrites as it likes the password, in lines of the form
// "name %q". Where there is no file yet it starts with content; where there is one, its own lines of these
// names go, and with them the users: Redis writes the default user down as it was, without a password in
// what an earlier version left.
//
// The password is in a file because ps shows arguments to everybody.
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
	if err := replaceFile(path, next.String()); err != nil {
		return fmt.Errorf("write a configuration of Redis: %w", err)
	}
	return nil
}
