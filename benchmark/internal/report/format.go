package report

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"heavy-read-api/benchmark/internal/measure"
)

// Median returns the median of the rounds.
func Median(rounds []float64) float64 { return measure.Summarize(rounds).Median }

// Thousands formats a count with thousands separators.
func Thousands(v float64) string {
	digits := fmt.Sprintf("%.0f", math.Abs(v))
	var b strings.Builder
	if v < 0 && digits != "0" {
		b.WriteByte('-')
	}
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// Seconds formats a time in seconds with three digits and a unit from µs to s.
func Seconds(s float64) string {
	switch a := math.Abs(s); {
	case a == 0:
		return "0"
	case a < 1e-3:
		return digits(s*1e6) + " µs"
	case a < 1:
		return digits(s*1e3) + " ms"
	default:
		return digits(s) + " s"
	}
}

// digits formats a number with three significant digits, or as an integer from 100 on.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95:
		return Thousands(v)
	case a >= 9.995:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// spread formats the median and, with several rounds, the minimum and the maximum.
func spread(rounds []float64, format func(float64) string) string {
	s := measure.Summarize(rounds)
	switch s.Rounds {
	case 0:
		return "unknown"
	case 1:
		return format(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", format(s.Median), format(s.Min), format(s.Max))
}

func megabytes(bytes int64) string { return Thousands(float64(bytes)/1e6) + " MB" }

// table writes a Markdown table whose columns are also aligned in the source. The first text columns are
// left-aligned, the others, which contain numbers, right-aligned.
func table(b *strings.Builder, text int, header []string, rows [][]string) {
	width := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell), 3)
		}
	}
	line := func(row []string) {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i < text {
				fmt.Fprintf(b, "| %s%s ", cell, pad)
			} else {
				fmt.Fprintf(b, "| %s%s ", pad, cell)
			}
		}
		b.WriteString("|\n")
	}
	line(header)
	for i := range header {
		if i < text {
			fmt.Fprintf(b, "| %s ", strings.Repeat("-", width[i]))
		} else {
			fmt.Fprintf(b, "| %s: ", strings.Repeat("-", width[i]-1))
		}
	}
	b.WriteString("|\n")
	for _, row := range rows {
		line(row)
	}
	b.WriteByte('\n')
}
