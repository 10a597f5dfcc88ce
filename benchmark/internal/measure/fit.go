package measure

import "math"

// Line is a straight line through measured points.
type Line struct {
	Base     float64 // value at 0
	Slope    float64 // increase per unit
	Residual float64 // root mean square of the distances between the points and the line, in the unit of the values
}

// Fit returns the line with the least squares through the points (x[i], y[i]). With points at fewer than two different x
// it is flat.
func Fit(x, y []float64) Line {
	n := min(len(x), len(y))
	if n == 0 {
		return Line{}
	}
	var meanX, meanY, xx, xy float64
	for i := range n {
		meanX += x[i] / float64(n)
		meanY += y[i] / float64(n)
	}
	for i := range n {
		xx += (x[i] - meanX) * (x[i] - meanX)
		xy += (x[i] - meanX) * (y[i] - meanY)
	}
	var l Line
	if xx > 0 {
		l.Slope = xy / xx
	}
	l.Base = meanY - l.Slope*meanX
	var squares float64
	for i := range n {
		d := y[i] - l.Base - l.Slope*x[i]
		squares += d * d
	}
	l.Residual = math.Sqrt(squares / float64(n))
	return l
}
