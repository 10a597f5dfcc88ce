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
	name    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	comment = regexp.MustCompile(`\s#`)
)

// Load sets the variables of the file that the environment does not have. A missing file is not an error. The error
// names each line that is refused; the other lines count nevertheless.
func Load(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read the settings: %w", err)
	}
	var refused []error
	lineOf := make(map[string]int) // by name
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		refuse := func(why string) { refused = append(refused, fmt.Errorf("%s, line %d: %s", path, number, why)) }
		key, value, found := strings.Cut(line, "=")
		if why := broken(key, value, found); why != "" {
			refuse(why)
			continue
		}
		if first, twice := lineOf[key]; twice {
			refuse(fmt.Sprintf("%s is already set in line %d: remove one of the two", key, first))
			continue
		}
		lineOf[key] = number
		if _, set := os.LookupEnv(key); !set {
			if err := os.Setenv(key, value); err != nil {
				refuse(key + ": " + err.Error())
			}
		}
	}
	return errors.Join(refused...)
}

// broken returns the rule that a line breaks, or "". The value may be a secret and is not in the text. Compose expands
// $, removes quotes and comments, and trims spaces.
func broken(key, value string, found bool) string {
	switch {
	case strings.HasSuffix(key+value, "\r"):
		return "save the file with line ends as on Unix (LF, not CRLF)"
	case strings.HasPrefix(key, "export "):
		return "write NAME=value without export"
	case !found:
		return "there is no =, write NAME=value"
	case strings.TrimSpace(key) != key, strings.TrimLeft(value, " \t") != value:
		return "remove the spaces before the name and around the ="
	case !name.MatchString(key):
		return fmt.Sprintf("%q is not a name: use letters, digits and underscores, with no digit first", key)
	case comment.MatchString(value):
		return key + ": move the comment behind the value to a line of its own"
	case strings.TrimSpace(value) != value:
		return key + ": remove the space at the end of the line"
	case strings.ContainsAny(value, `"'`):
		return key + ": write the value without quotes"
	case strings.Contains(value, "$"):
		return key + ": a value cannot contain $, which Docker Compose expands"
	case strings.Contains(value, "\r"):
		return key + ": a value cannot contain a carriage return"
	}
	return ""
}
