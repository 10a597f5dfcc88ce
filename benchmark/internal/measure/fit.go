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
	return fit(x, y, func(float64) float64 { return 1 })
}

// FitRelative is Fit with the relative distances: the squares are those of the distances divided by y, which must be positive.
// The residual is relative too.
func FitRelative(x, y []float64) Line {
	return fit(x, y, func(y float64) float64 { return y })
}

// fit divides the distance of each point by the unit of its y.
func fit(x, y []float64, unit func(y float64) float64) Line {
	n := min(len(x), len(y))
	if n == 0 {
		return Line{}
	}
	var sum, meanX, meanY, xx, xy float64
	weights := make([]float64, n)
	for i := range n {
		weights[i] = 1 / (unit(y[i]) * unit(y[i]))
		sum += weights[i]
		meanX += x[i] * weights[i]
		meanY += y[i] * weights[i]
	}
	meanX, meanY = meanX/sum, meanY/sum
	for i := range n {
		xx += (x[i] - meanX) * (x[i] - meanX) * weights[i]
		xy += (x[i] - meanX) * (y[i] - meanY) * weights[i]
	}
	var l Line
	if xx > 0 {
		l.Slope = xy / xx
	}
	l.Base = meanY - l.Slope*meanX
	var squares float64
	for i := range n {
		d := y[i] - l.Base - l.Slope*x[i]
		squares += d * d * weights[i]
	}
	l.Residual = math.Sqrt(squares / float64(n))
	return l
}
