package workload

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// fortunesDir is the folder of the texts of Debian's package fortunes.
const fortunesDir = "/usr/share/games/fortunes"

// Text is a text and its name.
type Text struct{ Name, Text string }

// Fortunes returns the texts of Debian's package fortunes that a post can contain, in the order of their files. It
// returns an error when the package is not installed.
func Fortunes() ([]Text, error) {
	files, err := os.ReadDir(fortunesDir)
	if err != nil {
		return nil, fmt.Errorf("the fortunes are not installed: %w", err)
	}
	var texts []Text
	for _, f := range files {
		if f.IsDir() || filepath.Ext(f.Name()) != "" { // index files, and symbolic links to the same texts
			continue
		}
		all, err := os.ReadFile(filepath.Join(fortunesDir, f.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the fortunes: %w", err)
		}
		for i, text := range strings.Split(string(all), "\n%\n") {
			if utf8.ValidString(text) {
				texts = append(texts, Text{Name: fmt.Sprintf("%s/%d", f.Name(), i), Text: text})
			}
		}
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("there are no fortunes in %s", fortunesDir)
	}
	return texts, nil
}
