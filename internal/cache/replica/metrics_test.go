package replica

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// gathered returns the sum of a metric of r over its labels, or over the series with one of the
// given label values.
func gathered(t testing.TB, r *Replica, name string, labels ...string) (sum float64) {
	t.Helper()
	reg := prometheus.NewRegistry()
	r.metrics.register(reg, r)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(labels) > 0 && !slices.Contains(labels, m.GetLabel()[0].GetValue()) {
				continue
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
		return sum
	}
	t.Fatalf("no metric %s", name)
	return 0
}
