package report

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// These two lines enclose the block that the report and the README have in common.
const (
	headlineBegin = "<!-- benchmark: the claims -->"
	headlineEnd   = "<!-- benchmark: end -->"
)

// CopyHeadline replaces the README's block with the report's. folder is the path from the README to the report's
// plots.
func CopyHeadline(report, readme, folder string) error {
	page, err := os.ReadFile(report)
	if err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		return fmt.Errorf("read the README: %w", err)
	}
	block, err := headline(string(page), folder)
	if err != nil {
		return fmt.Errorf("%s: %w", report, err)
	}
	before, _, after, err := cutBlock(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", readme, err)
	}
	if err := os.WriteFile(readme, []byte(before+block+after), 0o644); err != nil {
		return fmt.Errorf("write the README: %w", err)
	}
	return nil
}

// headline returns the block of a page with the links that a README needs. folder is the path from the README to the
// page.
func headline(page, folder string) (string, error) {
	_, block, _, err := cutBlock(page)
	return regexp.MustCompile(`(!\[[^]]*\]\()`).ReplaceAllString(block, "${1}"+folder+"/"), err
}

// cutBlock returns the text before the block, the block with its enclosing lines, and the text after it.
func cutBlock(text string) (before, block, after string, err error) {
	begin, end := strings.Index(text, headlineBegin), strings.Index(text, headlineEnd)
	if begin < 0 || end < begin {
		return "", "", "", errors.New("there is no block between " + headlineBegin + " and " + headlineEnd)
	}
	end += len(headlineEnd)
	return text[:begin], text[begin:end], text[end:], nil
}
