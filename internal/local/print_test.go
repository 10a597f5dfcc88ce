package local

import (
	"testing"

	"heavy-read-api/internal/stack/measure"
	"heavy-read-api/internal/stack/state"
)

func TestUnits(t *testing.T) {
	for _, tt := range []struct {
		format func(measure.Values, string) string
		value  float64
		want   string
	}{
		{seconds, 0.0000483, "48.3 µs"}, {seconds, 0.00124, "1.24 ms"}, {seconds, 0.2, "200 ms"}, {seconds, 2.5, "2.5 s"},
		{count, 0, "0"}, {count, 7.57, "7.57"}, {count, 123456, "123,456"},
		{size, 512, "512 B"}, {size, 1 << 20, "1.0 MiB"}, {size, 3 << 29, "1.5 GiB"},
		{number, 1234567, "1234567"},
	} {
		if got := tt.format(measure.Values{"x": tt.value}, "x"); got != tt.want {
			t.Errorf("%v is printed as %q, want %q", tt.value, got, tt.want)
		}
		if got := tt.format(nil, "x"); got != "-" {
			t.Errorf("nothing is printed as %q", got)
		}
	}
}

// The metrics are newer than the health check of a container.
func TestStateIsOfNow(t *testing.T) {
	for _, tt := range []struct {
		was    string
		values measure.Values
		want   string
	}{
		{state.Degraded, measure.Values{"ready": 1, "synced": 1, "subscribed": 1}, "ready"},
		{state.Degraded, measure.Values{"ready": 1, "synced": 0, "subscribed": 1}, "degraded: why"},
		{state.Ready, measure.Values{"ready": 1, "synced": 1, "subscribed": 0}, "degraded"},
		{state.Ready, measure.Values{"ready": 0}, "not ready"},
		{state.NotReady, nil, "not ready: why"},
		{state.Stopping, measure.Values{"ready": 1}, "stopping: why"},
	} {
		p := current(state.Process{State: tt.was, Detail: "why"}, tt.values)
		if got := p.StateText(); got != tt.want {
			t.Errorf("%s with %v is %q, want %q", tt.was, tt.values, got, tt.want)
		}
	}
}
