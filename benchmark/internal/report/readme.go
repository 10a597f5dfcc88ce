package report

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Between these two lines stands what the report and the README have in common.
const (
	headlineBegin = "<!-- benchmark: the claims -->"
	headlineEnd   = "<!-- benchmark: end -->"
)

// CopyHeadline replaces the block between the two marks in the README by that of the report.
func CopyHeadline(report, readme string) error {
	from, err := os.ReadFile(report)
	if err != nil {
		return fmt.Errorf("read the report: %w (a run without --only writes it)", err)
	}
	to, err := os.ReadFile(readme)
	if err != nil {
		return fmt.Errorf("read the README: %w", err)
	}
	_, block, _, err := cutBlock(string(from))
	if err != nil {
		return fmt.Errorf("%s: %w", report, err)
	}
	before, _, after, err := cutBlock(string(to))
	if err != nil {
		return fmt.Errorf("%s: %w", readme, err)
	}
	if err := os.WriteFile(readme, []byte(before+block+after), 0o644); err != nil {
		return fmt.Errorf("write the README: %w", err)
	}
	return nil
}

// cutBlock cuts a text into what stands before the block, the block with its marks, and the rest.
func cutBlock(text string) (before, block, after string, err error) {
	begin, end := strings.Index(text, headlineBegin), strings.Index(text, headlineEnd)
	if begin < 0 || end < begin {
		return "", "", "", errors.New("there is no block between " + headlineBegin + " and " + headlineEnd)
	}
	end += len(headlineEnd)
	return text[:begin], text[begin:end], text[end:], nil
}
