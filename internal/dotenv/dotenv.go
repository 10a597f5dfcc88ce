// Package dotenv reads the file .env, so that one file serves both ways to run the stack. It refuses lines that Docker
// Compose would interpret differently.
package dotenv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

var (
	name = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// Compose expands $, removes quotes and comments, and trims spaces.
	ambiguous = regexp.MustCompile(`["'$\r]|\s#|^\s|\s$`)
)

// Load sets the variables of the file that the environment does not have. A missing file is not an error.
func Load(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read the settings: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		if !found || !name.MatchString(key) || ambiguous.MatchString(value) {
			return fmt.Errorf("%s: %s: write NAME=value, without export, quotes, $, spaces around the = or a comment behind it, in lines that end as on Unix", path, key)
		}
		if _, set := os.LookupEnv(key); !set {
			if err := os.Setenv(key, value); err != nil {
				return fmt.Errorf("%s: %s: %w", path, key, err)
			}
		}
	}
	return nil
}
