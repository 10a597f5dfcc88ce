package report

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"heavy-read-api/benchmark/internal/measure"
)

// Colors that people who see fewer of them tell apart too (Okabe and Ito).
var (
	blue   = color.RGBA{0x00, 0x72, 0xb2, 0xff}
	orange = color.RGBA{0xd5, 0x5e, 0x00, 0xff}
	green  = color.RGBA{0x00, 0x9e, 0x73, 0xff}
	purple = color.RGBA{0xcc, 0x79, 0xa7, 0xff}
	sky    = color.RGBA{0x56, 0xb4, 0xe9, 0xff}
	gray   = color.RGBA{0x88, 0x88, 0x88, 0xff}
	light  = color.RGBA{0xcc, 0xcc, 0xcc, 0xff}
)

const (
	plotWidth  = 22 * vg.Centimeter
	plotHeight = 11 * vg.Centimeter
	edge       = 4 * vg.Millimeter
)

// named is a plot and the name of its file.
type named struct {
	name   string
	height vg.Length
	draw   func() (*plot.Plot, error)
}

// plots returns those for which there is something to draw.
func (r *Report) plots() []named {
	var all []named
	lanes := func(name, title string, lanes []Lane) {
		if len(lanes) > 0 {
			all = append(all, named{name, vg.Length(2.6+0.95*float64(len(lanes))) * vg.Centimeter, func() (*plot.Plot, error) { return lanePlot(title, lanes) }})
		}
	}
	lanes("throughput", "Requests per second, closed loop", r.Throughput)
	if len(r.Pipelined) > 0 {
		lanes("pipelining", fmt.Sprintf("Requests per second, %d in flight on each connection", r.Pipelined[0].Depth), r.Pipelined)
	}
	if slices.ContainsFunc(r.Latency, func(s Steady) bool { return s.Sustained }) {
		all = append(all, named{"latency", plotHeight, r.latencyPlot})
	}
	if len(r.Propagation) > 0 {
		all = append(all, named{"propagation", plotHeight, r.propagationPlot})
	}
	if r.Memory != nil && len(r.Memory.Readers) > 0 {
		all = append(all, named{"memory", vg.Length(2.8+1.3*float64(len(r.Memory.Readers))) * vg.Centimeter, r.memoryPlot})
	}
	return all
}

// Plots returns the report's plots as SVG, by the name of their file without ".svg".
func (r *Report) Plots() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, n := range r.plots() {
		p, err := n.draw()
		if err != nil {
			return nil, fmt.Errorf("draw %s: %w", n.name, err)
		}
		canvas := vgsvg.New(plotWidth, n.height)
		p.Draw(draw.Crop(draw.New(canvas), edge, -edge, edge, -edge))
		var b bytes.Buffer
		if _, err := canvas.WriteTo(&b); err != nil {
			return nil, fmt.Errorf("draw %s: %w", n.name, err)
		}
		// Who has not got the font gets another without serifs.
		out[n.name] = bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	}
	return out, nil
}

var sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

// newPlot returns an empty plot in the style of the report.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = 3 * vg.Millimeter
	p.Title.TextStyle.Font = font.From(sans, 13)
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font = font.From(sans, 10)
		axis.Tick.Label.Font = font.From(sans, 10)
		axis.LineStyle.Color = gray
		axis.Tick.LineStyle.Color = gray
	}
	p.Legend.TextStyle.Font = font.From(sans, 10)
	p.Legend.Padding = 1 * vg.Millimeter
	p.Legend.ThumbnailWidth = 8 * vg.Millimeter
	return p
}

func grid(vertical, horizontal bool) *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = light, light
	if !vertical {
		g.Vertical.Width = 0
	}
	if !horizontal {
		g.Horizontal.Width = 0
	}
	return g
}

// margin leaves room at the end of the longest bar for what is written there.
const margin = 1.35

// lanePlot draws a bar for each lane, the first on top, with the spread over the rounds.
func lanePlot(title string, lanes []Lane) (*plot.Plot, error) {
	p := newPlot(title)
	n := len(lanes)
	names := make([]string, n)
	spreads := make(errorBars, n)
	labels := plotter.XYLabels{}
	longest := 0.0
	p.Add(grid(true, false))
	for i, l := range lanes {
		y := n - 1 - i
		s := measure.Summarize(l.Rates)
		names[y] = l.Name + ", " + l.Via
		spreads[i] = errorBar{y: float64(y), spread: s}
		labels.XYs = append(labels.XYs, plotter.XY{X: s.Max, Y: float64(y)})
		labels.Labels = append(labels.Labels, Thousands(s.Median)+"/s")
		longest = max(longest, s.Max)
		bar, err := plotter.NewBarChart(plotter.Values{s.Median}, 0.55*vg.Centimeter)
		if err != nil {
			return nil, err
		}
		bar.Horizontal, bar.XMin, bar.LineStyle.Width, bar.Color = true, float64(y), 0, laneColor(l)
		p.Add(bar)
	}
	bars, err := plotter.NewXErrorBars(spreads)
	if err != nil {
		return nil, err
	}
	text, err := barLabels(labels)
	if err != nil {
		return nil, err
	}
	p.Add(bars, text)
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, longest*margin
	p.X.Tick.Marker = countTicks{}
	p.Y.Min, p.Y.Max = -0.6, float64(n)-0.4
	return p, nil
}

func laneColor(l Lane) color.Color {
	switch {
	case l.Name == LaneFast:
		return blue
	case strings.HasPrefix(l.Name, "nginx"):
		return green
	case l.Name == LaneStd:
		return sky
	case l.Name == LaneMarshal:
		return purple
	}
	return orange
}

// below is what centered text sits too low by.
const below = 1.3

func barLabels(at plotter.XYLabels) (*plotter.Labels, error) {
	l, err := plotter.NewLabels(at)
	if err != nil {
		return nil, err
	}
	for i := range l.TextStyle {
		l.TextStyle[i].Font = font.From(sans, 10)
		l.TextStyle[i].YAlign = text.YCenter
	}
	l.Offset = vg.Point{X: 2.5 * vg.Millimeter, Y: below}
	return l, nil
}

// errorBars are the spreads of bars that lie on their side.
type errorBars []errorBar

type errorBar struct {
	y      float64
	spread measure.Spread
}

func (e errorBars) Len() int                { return len(e) }
func (e errorBars) XY(i int) (x, y float64) { return e[i].spread.Median, e[i].y }
func (e errorBars) XError(i int) (low, high float64) {
	s := e[i].spread
	return s.Median - s.Min, s.Max - s.Median
}

// latencyPlot draws the percentiles of each rate that was sustained, on a log axis.
func (r *Report) latencyPlot() (*plot.Plot, error) {
	p := newPlot("Latency of reads at a constant rate")
	p.Y.Label.Text = "latency (log axis)"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, timeTicks{}
	p.Add(grid(false, true))
	var values []float64
	colors := map[string][]color.Color{ViaDirect: {sky, blue, color.RGBA{0x00, 0x3c, 0x66, 0xff}}, ViaGateway: {color.RGBA{0xe6, 0x9f, 0x00, 0xff}, orange, color.RGBA{0x80, 0x30, 0x00, 0xff}}}
	drawn := map[string]int{}
	for _, s := range r.Latency {
		if !s.Sustained {
			continue
		}
		var xys plotter.XYs
		for i, q := range [][]float64{s.P50, s.P90, s.P99, s.P999} {
			v := Median(q)
			xys = append(xys, plotter.XY{X: float64(i), Y: v})
			values = append(values, v)
		}
		line, points, err := plotter.NewLinePoints(xys)
		if err != nil {
			return nil, err
		}
		c := colors[s.Via][min(drawn[s.Via], 2)]
		drawn[s.Via]++
		line.Color, line.Width = c, vg.Points(1.8)
		points.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(3), Shape: draw.CircleGlyph{}}
		if s.Via == ViaGateway {
			points.Shape = draw.PyramidGlyph{}
		}
		p.Add(line, points)
		name := fmt.Sprintf("%s, %s/s", s.Via, Thousands(float64(s.Rate)))
		if s.Share > 0 {
			name += fmt.Sprintf(" (%.0f %%)", 100*s.Share)
		}
		p.Legend.Add(name, line, points)
	}
	p.NominalX("p50", "p90", "p99", "p99.9")
	p.X.Min, p.X.Max = -0.2, 3.2
	p.Y.Min, p.Y.Max = decades(values)
	p.Legend.XOffs, p.Legend.YOffs = -3*vg.Millimeter, 3*vg.Millimeter // lines rise: there is room below
	return p, nil
}

// propagationPlot draws the distributions of the propagation times and of Redis alone.
func (r *Report) propagationPlot() (*plot.Plot, error) {
	p := newPlot("Propagation: from POST to visible on every reader")
	p.X.Label.Text, p.Y.Label.Text = "time (log axis)", "share of the writes"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, timeTicks{}
	p.Y.Min, p.Y.Max = 0, 1
	p.Y.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0 %"}, {Value: 0.25, Label: "25 %"}, {Value: 0.5, Label: "50 %"}, {Value: 0.75, Label: "75 %"}, {Value: 0.99, Label: "99 %"}}
	p.Add(grid(true, true))
	var values []float64
	add := func(name string, points []measure.Point, c color.Color, dashed bool) error {
		var xys plotter.XYs
		for _, point := range points {
			xys = append(xys, plotter.XY{X: point.Value, Y: point.Share})
			values = append(values, point.Value)
		}
		line, err := plotter.NewLine(xys)
		if err != nil {
			return err
		}
		line.StepStyle = plotter.PreStep
		line.Color, line.Width = c, vg.Points(1.8)
		if dashed {
			line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
		}
		p.Add(line)
		p.Legend.Add(name, line)
		return nil
	}
	for i, m := range r.Propagation {
		if err := add(Thousands(float64(m.Rate))+" writes/s", m.CDF, []color.Color{sky, blue, orange, green}[i%4], false); err != nil {
			return nil, err
		}
	}
	if r.Floor != nil {
		if err := add("Redis alone: publish to delivered", r.Floor.CDF, gray, true); err != nil {
			return nil, err
		}
	}
	p.X.Min, p.X.Max = decades(values)
	p.Legend.XOffs, p.Legend.YOffs = -3*vg.Millimeter, 3*vg.Millimeter
	return p, nil
}

// memoryPlot draws what each reader took before, at most and after loading.
func (r *Report) memoryPlot() (*plot.Plot, error) {
	m := r.Memory
	p := newPlot(fmt.Sprintf("Resident memory of each reader, %s posts", Thousands(float64(m.Readers[0].Entries))))
	p.X.Label.Text = "MB"
	p.Add(grid(true, false))
	type series struct {
		name  string
		color color.Color
		value func(ReaderMemory) int64
	}
	all := []series{{"after loading", blue, func(v ReaderMemory) int64 { return v.After }}}
	if m.Loaded {
		all = []series{
			{"before", sky, func(v ReaderMemory) int64 { return v.Before }},
			{"at most while loading", orange, func(v ReaderMemory) int64 { return v.Peak }},
			all[0],
		}
	}
	n := len(m.Readers)
	names := make([]string, n)
	longest := 0.0
	for s, kind := range all {
		values := make(plotter.Values, n)
		var labels plotter.XYLabels
		for i, v := range m.Readers {
			y := n - 1 - i
			names[y] = v.Name
			mb := float64(kind.value(v)) / 1e6
			values[y] = mb
			longest = max(longest, mb)
			labels.XYs = append(labels.XYs, plotter.XY{X: mb, Y: float64(y)})
			labels.Labels = append(labels.Labels, Thousands(mb))
		}
		const width = 0.32 * vg.Centimeter
		bar, err := plotter.NewBarChart(values, width)
		if err != nil {
			return nil, err
		}
		bar.Horizontal, bar.LineStyle.Width, bar.Color = true, 0, kind.color
		bar.Offset = vg.Length(float64(len(all)-1)/2-float64(s)) * width
		text, err := barLabels(labels)
		if err != nil {
			return nil, err
		}
		text.Offset = vg.Point{X: 1 * vg.Millimeter, Y: bar.Offset + below}
		for i := range text.TextStyle {
			text.TextStyle[i].Font = font.From(sans, 8)
		}
		p.Add(bar, text)
		p.Legend.Add(kind.name, bar)
	}
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, longest*(margin+0.2) // the legend is there too
	p.Y.Min, p.Y.Max = -0.6, float64(n)-0.4
	p.Legend.Top = true
	return p, nil
}

// decades returns a range for a log axis around the values.
func decades(values []float64) (from, to float64) {
	from, to = slices.Min(values), slices.Max(values)
	if from <= 0 {
		from = 1e-6
	}
	return math.Pow(10, math.Floor(math.Log10(from))), math.Pow(10, math.Ceil(math.Log10(max(to, 10*from))))
}

// timeTicks marks the decades of a log axis of seconds.
type timeTicks struct{}

// Ticks implements plot.Ticker.
func (timeTicks) Ticks(from, to float64) []plot.Tick {
	var ticks []plot.Tick
	for e := math.Floor(math.Log10(from)); e <= math.Ceil(math.Log10(to)); e++ {
		decade := math.Pow(10, e)
		ticks = append(ticks, plot.Tick{Value: decade, Label: short(decade)})
		for i := 2.0; i < 10; i++ {
			ticks = append(ticks, plot.Tick{Value: i * decade})
		}
	}
	return ticks
}

// short formats a power of ten of seconds.
func short(s float64) string {
	switch {
	case s < 0.9e-3:
		return fmt.Sprintf("%.0f µs", s*1e6)
	case s < 0.9:
		return fmt.Sprintf("%.0f ms", s*1e3)
	}
	return fmt.Sprintf("%.0f s", s)
}

// countTicks are gonum's own with separators in the numbers.
type countTicks struct{}

// Ticks implements plot.Ticker.
func (countTicks) Ticks(from, to float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(from, to)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = Thousands(ticks[i].Value)
		}
	}
	return ticks
}
