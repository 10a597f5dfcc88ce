package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"heavy-read-api/benchmark/internal/measure"
)

const (
	plotWidth  = 22 * vg.Centimeter
	plotHeight = 11 * vg.Centimeter
	edge       = 4 * vg.Millimeter
)

// named is a row of plots and the name of its file.
type named struct {
	name, title string
	height      vg.Length
	draw        func() ([]*plot.Plot, error)
}

// plots returns the plots for which there is data.
func (r *Report) plots() []named {
	var all []named
	if faults := r.faultPlots(); len(faults) > 0 {
		all = append(all, named{"story", "Reads per second while a reader and Redis are killed", 9 * vg.Centimeter, func() ([]*plot.Plot, error) {
			var row []*plot.Plot
			for _, f := range faults {
				p, err := f.plot()
				if err != nil {
					return nil, err
				}
				row = append(row, p)
			}
			return row, nil
		}})
	}
	one := func(name, title string, height vg.Length, draw func(title string) (*plot.Plot, error)) {
		all = append(all, named{name, title, height, func() ([]*plot.Plot, error) {
			p, err := draw(title)
			return []*plot.Plot{p}, err
		}})
	}
	bars := func(name, title string, lanes []Lane, value func(Lane) []float64, label func(float64) string) {
		if len(lanes) > 0 && len(value(lanes[0])) > 0 {
			one(name, title, vg.Length(2.6+0.85*float64(len(lanes)))*vg.Centimeter, func(title string) (*plot.Plot, error) {
				return lanePlot(title, lanes, value, label)
			})
		}
	}
	rates := func(l Lane) []float64 { return l.Rates }
	rate := func(v float64) string { return Thousands(v) + "/s" }
	if r.Own != nil {
		bars("own", "Requests per second of one reader, "+strings.ReplaceAll(r.Own.Setting(), ";", ","), r.Own.Lanes, rates, rate)
		bars("proxies", "CPU time per request of the proxy only", r.Own.Proxies, func(l Lane) []float64 { return l.CPU }, Seconds)
	}
	bars("throughput", "Requests per second, closed loop on shared cores", r.Throughput, rates, rate)
	if len(r.Pipelined) > 0 {
		bars("pipelining", fmt.Sprintf("Requests per second, %d in flight on each connection, shared cores", r.Pipelined[0].Depth), r.Pipelined, rates, rate)
	}
	if slices.ContainsFunc(r.Latency, func(s Steady) bool { return s.Sustained }) {
		one("latency", "Latency of reads at a constant rate", plotHeight, r.latencyPlot)
	}
	if len(r.Propagation) > 0 {
		one("propagation", "Propagation: from POST to visible on every reader", plotHeight, r.propagationPlot)
	}
	if r.Memory != nil && len(r.Memory.Readers) > 0 {
		one("memory", fmt.Sprintf("Resident memory of each reader, %s posts", Thousands(float64(r.Memory.Readers[0].Entries))),
			vg.Length(3.4+1.3*float64(len(r.Memory.Readers)))*vg.Centimeter, r.memoryPlot)
	}
	return all
}

// Plots returns the plots as SVG. The keys are the names of the files without ".svg".
func (r *Report) Plots() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, n := range r.plots() {
		row, err := n.draw()
		if err != nil {
			return nil, fmt.Errorf("draw %s: %w", n.name, err)
		}
		out[n.name], err = render(n.title, plotWidth, n.height, func(c draw.Canvas) {
			width := (c.Max.X - c.Min.X) / vg.Length(len(row))
			for i, p := range row {
				left := width * vg.Length(i)
				p.Draw(draw.Crop(c, left, left+width-(c.Max.X-c.Min.X), 0, 0))
			}
		})
		if err != nil {
			return nil, fmt.Errorf("draw %s: %w", n.name, err)
		}
	}
	return out, nil
}

var sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

// newPlot returns an empty plot in the style of the report.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = paper.light
	p.Title.Text = title
	p.Title.Padding = 3 * vg.Millimeter
	p.Title.TextStyle.Font, p.Title.TextStyle.Color = font.From(sans, 13), ink.light
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Label.TextStyle.Font, a.Label.TextStyle.Color = font.From(sans, 10), ink.light
		a.Tick.Label.Font, a.Tick.Label.Color = font.From(sans, 10), ink.light
		a.LineStyle.Color = axis.light
		a.Tick.LineStyle.Color = axis.light
	}
	p.Legend.TextStyle.Font, p.Legend.TextStyle.Color = font.From(sans, 10), ink.light
	p.Legend.Padding = 1 * vg.Millimeter
	p.Legend.ThumbnailWidth = 8 * vg.Millimeter
	return p
}

func lines(vertical, horizontal bool) *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = grid.light, grid.light
	if !vertical {
		g.Vertical.Width = 0
	}
	if !horizontal {
		g.Horizontal.Width = 0
	}
	return g
}

// faultPlot is a plot of the reads over time during a fault.
type faultPlot struct {
	title            string
	failed, requests int
	timeline         Timeline
}

// faultPlots returns the faults whose timelines are drawn.
func (r *Report) faultPlots() []faultPlot {
	var all []faultPlot
	if f := r.Readers; f != nil && len(f.Timeline.Failed) > 1 {
		all = append(all, faultPlot{"A reader is killed, one is added", f.Failed, f.Requests, f.Timeline})
	}
	if f := r.Redis; f != nil && len(f.Timeline.Failed) > 1 {
		all = append(all, faultPlot{"Redis is killed", f.Failed, f.Requests, f.Timeline})
	}
	return all
}

// plot draws the reads per second as a band for each reader, and the failed reads.
func (a faultPlot) plot() (*plot.Plot, error) {
	t := a.timeline
	p := newPlot(fmt.Sprintf("%s: %s of %s reads failed", a.title, Thousands(float64(a.failed)), Thousands(float64(a.requests))))
	p.Title.TextStyle.Font = font.From(sans, 11)
	p.X.Label.Text, p.Y.Label.Text = "seconds", "reads/s through the gateway"
	p.X.Tick.Marker, p.Y.Tick.Marker = secondTicks{}, countTicks{}
	p.Add(lines(false, true))
	bins := len(t.Failed) - 1 // the last bin is incomplete
	sum := make([]float64, bins)
	edgeOf := func() plotter.XYs { // the top of the bands so far
		xys := make(plotter.XYs, bins)
		for i := range xys {
			xys[i] = plotter.XY{X: float64(i) * timelineStep.Seconds(), Y: sum[i]}
		}
		return xys
	}
	var names plotter.XYLabels
	for n, name := range t.Readers {
		below := edgeOf()
		widest := 0
		for i := range bins {
			sum[i] += perSecond(t.Answered[n][i])
			if i < bins-8 && t.Answered[n][i] > t.Answered[n][widest] {
				widest = i
			}
		}
		if t.Answered[n][0] > 0 {
			widest = 0
		}
		names.XYs = append(names.XYs, plotter.XY{X: float64(widest) * timelineStep.Seconds(), Y: (below[widest].Y + sum[widest]) / 2})
		names.Labels = append(names.Labels, name[:min(len(name), 14)])
		band, err := polygon(edgeOf(), below)
		if err != nil {
			return nil, err
		}
		band.Color = bands[n%len(bands)].light
		p.Add(band)
	}
	total, err := plotter.NewLine(edgeOf())
	if err != nil {
		return nil, err
	}
	total.Color, total.Width = reader.light, vg.Points(2.2)
	p.Add(total)
	highest := slices.Max(sum)
	for i := range bins {
		if rate := perSecond(t.Failed[i]); rate > 0 {
			x, width := float64(i)*timelineStep.Seconds(), timelineStep.Seconds()
			bar, err := polygon(plotter.XYs{{X: x, Y: rate}, {X: x + width, Y: rate}}, plotter.XYs{{X: x}, {X: x + width}})
			if err != nil {
				return nil, err
			}
			bar.Color = failed.light
			p.Add(bar)
		}
	}
	if len(names.XYs) > 0 {
		label, err := labels(names, 8, vg.Point{X: 1 * vg.Millimeter, Y: centered})
		if err != nil {
			return nil, err
		}
		p.Add(label)
	}
	top := highest * 1.5
	for i, e := range t.Events {
		line, err := plotter.NewLine(plotter.XYs{{X: e.At}, {X: e.At, Y: top * (0.97 - 0.09*float64(i))}})
		if err != nil {
			return nil, err
		}
		line.Color, line.Width, line.Dashes = ink.light, vg.Points(1), []vg.Length{vg.Points(3), vg.Points(2)}
		at := plotter.XYLabels{XYs: plotter.XYs{{X: e.At, Y: top * (0.97 - 0.09*float64(i))}}, Labels: []string{e.Name}}
		label, err := labels(at, 9, vg.Point{X: 1 * vg.Millimeter, Y: centered})
		if err != nil {
			return nil, err
		}
		if e.Fault {
			line.Color = failed.light
			label.TextStyle[0].Color = failed.light
		}
		p.Add(line, label)
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, float64(bins)*timelineStep.Seconds(), 0, top
	return p, nil
}

// polygon returns the area between two lines.
func polygon(upper, lower plotter.XYs) (*plotter.Polygon, error) {
	area := slices.Clone(upper)
	for _, xy := range slices.Backward(lower) {
		area = append(area, xy)
	}
	p, err := plotter.NewPolygon(area)
	if err != nil {
		return nil, err
	}
	p.LineStyle.Width = 0
	return p, nil
}

// margin leaves room after the longest bar for its label.
const margin = 1.35

// lanePlot draws a bar for each lane from top to bottom, with the spread over the rounds.
func lanePlot(title string, lanes []Lane, value func(Lane) []float64, label func(float64) string) (*plot.Plot, error) {
	p := newPlot(title)
	n := len(lanes)
	names := make([]string, n)
	spreads := make(errorBars, n)
	at := plotter.XYLabels{}
	longest := 0.0
	p.Add(lines(true, false))
	for i, l := range lanes {
		y := n - 1 - i
		s := measure.Summarize(value(l))
		names[y] = l.Name
		if l.Depth > 1 {
			names[y] += fmt.Sprintf(", %d in flight", l.Depth)
		}
		if l.Via == ViaGateway && !strings.Contains(proxies, l.Name) {
			names[y] += ", gateway"
		}
		spreads[i] = errorBar{y: float64(y), spread: s}
		at.XYs = append(at.XYs, plotter.XY{X: s.Max, Y: float64(y)})
		at.Labels = append(at.Labels, label(s.Median))
		longest = max(longest, s.Max)
		bar, err := plotter.NewBarChart(plotter.Values{s.Median}, 0.5*vg.Centimeter)
		if err != nil {
			return nil, err
		}
		bar.Horizontal, bar.XMin, bar.LineStyle.Width, bar.Color = true, float64(y), 0, laneShade(l).light
		p.Add(bar)
	}
	bars, err := plotter.NewXErrorBars(spreads)
	if err != nil {
		return nil, err
	}
	bars.Color = ink.light
	text, err := labels(at, 10, vg.Point{X: 2.5 * vg.Millimeter, Y: centered})
	if err != nil {
		return nil, err
	}
	p.Add(bars, text)
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, longest*margin
	p.X.Tick.Marker = countTicks{}
	if longest < 1 { // seconds
		p.X.Tick.Marker = shortTicks{}
	}
	p.Y.Min, p.Y.Max = -0.6, float64(n)-0.4
	return p, nil
}

// proxies contains the names of the lanes that are proxies.
const proxies = ProxyGateway + ProxyNginx + ProxyHAProxy

// laneShade returns a bold colour for the reader's fast lane and for the gateway, and grey for the peers.
func laneShade(l Lane) shade {
	switch l.Name {
	case LaneFast:
		return reader
	case ProxyGateway:
		return gateway
	case LaneNginx, LaneNetHTTP, ProxyNginx, ProxyHAProxy:
		return peer
	}
	return lighter
}

// centered is an offset, in points, that compensates for gonum centering text too high.
const centered = 1.3

func labels(at plotter.XYLabels, size vg.Length, offset vg.Point) (*plotter.Labels, error) {
	l, err := plotter.NewLabels(at)
	if err != nil {
		return nil, err
	}
	for i := range l.TextStyle {
		l.TextStyle[i].Font, l.TextStyle[i].Color = font.From(sans, size), ink.light
		l.TextStyle[i].YAlign = text.YCenter
	}
	l.Offset = offset
	return l, nil
}

// errorBars are the spreads of horizontal bars.
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

// latencyPlot draws the percentiles of each sustained rate on a log axis.
func (r *Report) latencyPlot(title string) (*plot.Plot, error) {
	p := newPlot(title)
	p.Y.Label.Text = "latency (log axis)"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, timeTicks{}
	p.Add(lines(false, true))
	values := []float64{ClaimedRead}
	for _, s := range r.Latency {
		if !s.Sustained || len(s.P50) == 0 {
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
		c := reader.light
		points.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(3.5), Shape: draw.CircleGlyph{}}
		if s.Via == ViaGateway {
			c = gateway.light
			points.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(3.5), Shape: draw.PyramidGlyph{}}
		}
		name := fmt.Sprintf("%s, %s reads/s", s.Via, Thousands(float64(s.Rate)))
		line.Color, line.Width = c, vg.Points(1.4)
		if s.Highest {
			line.Width = vg.Points(2.6)
			name += fmt.Sprintf(" (highest rate with p99 < %s)", Seconds(ClaimedRead))
		} else {
			line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
		}
		p.Add(line, points)
		p.Legend.Add(name, line, points)
	}
	bound, err := plotter.NewLine(plotter.XYs{{X: -0.2, Y: ClaimedRead}, {X: 3.2, Y: ClaimedRead}})
	if err != nil {
		return nil, err
	}
	bound.Color, bound.Width = axis.light, vg.Points(1)
	p.Add(bound)
	p.NominalX("p50", "p90", "p99", "p99.9")
	p.X.Min, p.X.Max = -0.2, 3.2
	p.Y.Min, p.Y.Max = decades(values)
	p.Y.Max *= 10 // room for the legend above the lines, which rise to the right
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.XOffs, p.Legend.YOffs = 3*vg.Millimeter, -2*vg.Millimeter
	return p, nil
}

// propagationPlot draws the distributions of the propagation times, and of Redis Pub/Sub without the stack.
func (r *Report) propagationPlot(title string) (*plot.Plot, error) {
	p := newPlot(title)
	p.X.Label.Text, p.Y.Label.Text = "time (log axis)", "share of the writes"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, timeTicks{}
	p.Y.Min, p.Y.Max = 0, 1
	p.Y.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0 %"}, {Value: 0.25, Label: "25 %"}, {Value: 0.5, Label: "50 %"}, {Value: 0.75, Label: "75 %"}, {Value: 0.99, Label: "99 %"}}
	p.Add(lines(true, true))
	var values []float64
	add := func(name string, points []measure.Point, style draw.LineStyle) error {
		var xys plotter.XYs
		for _, point := range points {
			xys = append(xys, plotter.XY{X: point.Value, Y: point.Share})
			values = append(values, point.Value)
		}
		line, err := plotter.NewLine(xys)
		if err != nil {
			return err
		}
		line.StepStyle, line.LineStyle = plotter.PreStep, style
		p.Add(line)
		p.Legend.Add(name, line)
		return nil
	}
	for i, m := range r.Propagation {
		style := []draw.LineStyle{
			{Color: lighter.light, Width: vg.Points(1.8)}, {Color: reader.light, Width: vg.Points(2.6)}, {Color: gateway.light, Width: vg.Points(1.8)},
		}[i%3]
		if err := add(Thousands(float64(m.Rate))+" writes/s", m.CDF, style); err != nil {
			return nil, err
		}
	}
	if r.Floor != nil {
		style := draw.LineStyle{Color: axis.light, Width: vg.Points(1.8), Dashes: []vg.Length{vg.Points(4), vg.Points(3)}}
		if err := add("Redis Pub/Sub only: publish to delivery", r.Floor.CDF, style); err != nil {
			return nil, err
		}
	}
	p.X.Min, p.X.Max = decades(values)
	p.X.Max *= 10 // room for the legend beside the lines
	p.Legend.XOffs, p.Legend.YOffs = -3*vg.Millimeter, 3*vg.Millimeter
	return p, nil
}

// memoryPlot draws the memory of each reader before, during and after the import.
func (r *Report) memoryPlot(title string) (*plot.Plot, error) {
	m := r.Memory
	p := newPlot(title)
	p.X.Label.Text = "MB"
	p.Add(lines(true, false))
	type series struct {
		name  string
		shade shade
		value func(ReaderMemory) int64
	}
	all := []series{{"after the import", lighter, func(v ReaderMemory) int64 { return v.After }}}
	if m.Imported {
		all = []series{
			{"before the import", peer, func(v ReaderMemory) int64 { return v.Before }},
			{"maximum during the import", reader, func(v ReaderMemory) int64 { return v.Peak }},
			all[0],
		}
	}
	n := len(m.Readers)
	names := make([]string, n)
	longest := 0.0
	for s, kind := range all {
		values := make(plotter.Values, n)
		var at plotter.XYLabels
		for i, v := range m.Readers {
			y := n - 1 - i
			names[y] = v.Name
			mb := float64(kind.value(v)) / 1e6
			values[y] = mb
			longest = max(longest, mb)
			at.XYs = append(at.XYs, plotter.XY{X: mb, Y: float64(y)})
			at.Labels = append(at.Labels, Thousands(mb))
		}
		const width = 0.32 * vg.Centimeter
		bar, err := plotter.NewBarChart(values, width)
		if err != nil {
			return nil, err
		}
		bar.Horizontal, bar.LineStyle.Width, bar.Color = true, 0, kind.shade.light
		bar.Offset = vg.Length(float64(len(all)-1)/2-float64(s)) * width
		text, err := labels(at, 8, vg.Point{X: 1 * vg.Millimeter, Y: bar.Offset + centered})
		if err != nil {
			return nil, err
		}
		p.Add(bar, text)
		p.Legend.Add(kind.name, bar)
	}
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, longest*(margin+0.25) // the legend is at the end of the bars
	p.X.Tick.Marker = countTicks{}
	p.Y.Min, p.Y.Max = -0.6, float64(n)-0.4
	p.Legend.XOffs, p.Legend.YOffs = -3*vg.Millimeter, 3*vg.Millimeter
	return p, nil
}

// decades returns the powers of ten around the values.
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

// short formats seconds without decimals.
func short(s float64) string {
	switch {
	case s < 0.9e-3:
		return fmt.Sprintf("%.0f µs", s*1e6)
	case s < 0.9:
		return fmt.Sprintf("%.0f ms", s*1e3)
	}
	return fmt.Sprintf("%.0f s", s)
}

// relabeled returns gonum's default ticks with other labels.
func relabeled(from, to float64, label func(float64) string) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(from, to)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = label(ticks[i].Value)
		}
	}
	return ticks
}

// countTicks labels counts with thousands separators.
type countTicks struct{}

// Ticks implements plot.Ticker.
func (countTicks) Ticks(from, to float64) []plot.Tick { return relabeled(from, to, Thousands) }

// secondTicks labels seconds without trailing zeros.
type secondTicks struct{}

// Ticks implements plot.Ticker.
func (secondTicks) Ticks(from, to float64) []plot.Tick {
	return relabeled(from, to, func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) })
}

// shortTicks labels times on a linear axis.
type shortTicks struct{}

// Ticks implements plot.Ticker.
func (shortTicks) Ticks(from, to float64) []plot.Tick { return relabeled(from, to, short) }
