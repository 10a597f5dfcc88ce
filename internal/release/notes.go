package main

import (
	"fmt"
	"strings"
)

// notesOf returns the section of a version in the changelog, without its heading.
func notesOf(changelog, version string) (string, error) {
	number := strings.TrimPrefix(version, "v")
	heading := "## [" + number + "]"
	var notes []string
	inside := false
	for line := range strings.Lines(changelog) {
		switch {
		case line == heading+"\n" || strings.HasPrefix(line, heading+" "):
			inside = true
		case strings.HasPrefix(line, "## ") || strings.HasPrefix(line, "["): // the next section, or a link definition
			inside = false
		case inside:
			notes = append(notes, line)
		}
	}
	text := strings.TrimSpace(strings.Join(notes, ""))
	if text == "" {
		return "", fmt.Errorf("CHANGELOG.md has no notes for version %[1]s: insert the heading \"## [%[1]s] - YYYY-MM-DD\" "+
			"below \"## [Unreleased]\", so that the entries belong to it, commit, and tag that commit (git tag --force v%[1]s)", number)
	}
	return text + "\n", nil
}
