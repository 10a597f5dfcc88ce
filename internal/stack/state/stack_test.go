package state

import "testing"

// Prometheus, Grafana and the load generator serve nobody: without them the stack is ready and well.
func TestSpectators(t *testing.T) {
	for role, want := range map[string]bool{Prometheus: true, Grafana: true, Load: true, Auditor: false, Gateway: false, Reader: false} {
		s := Stack{Complete: true, Processes: []Process{{Name: "writer", Role: Writer, State: Ready}, {Name: "sick", Role: role, State: NotReady}}}
		if s.Ready() != want || s.Settled() != want || s.Well() != want {
			t.Errorf("with a sick %s: ready %v, settled %v, well %v", role, s.Ready(), s.Settled(), s.Well())
		}
	}
	degraded := Stack{Complete: true, Processes: []Process{{Role: Reader, State: Degraded}}}
	if !degraded.Ready() || degraded.Well() {
		t.Error("a degraded reader is ready, but not well")
	}
}
