package stack

import (
	"errors"
	"fmt"
	"net/http"
	"text/tabwriter"

	"heavy-read-api/internal/dashboard"
)

// stats writes what each reader holds and does, from the dashboard's newest measurement.
func (c *command) stats() error {
	control, err := c.control()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "http://"+control+"/api/series?last=1", nil)
	if err != nil {
		return err
	}
	state, err := getState(c.ctx, control) // of now; the measurement is of up to a second ago
	if err != nil {
		return err
	}
	var series dashboard.Series
	if err := call(req, &series); err != nil {
		return err
	}
	if len(series.Points) == 0 {
		return errors.New("nothing was measured yet: ask again in a second")
	}
	newest := series.Points[len(series.Points)-1]
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "READER\tSTATE\tREADS/S\tP99\tPROPAGATION P99\tPOSTS\tCACHE\tMEMORY\tVERSION\tLAG\t")
	for _, p := range state.Processes {
		if p.Role != roleReader {
			continue
		}
		m := newest.Values[p.Name]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, p.State,
			number(m, "reads", 1, ""), number(m, "p99", 1e3, " ms"), number(m, "propagation_p99", 1e3, " ms"),
			number(m, "entries", 1, ""), number(m, "cache_bytes", 1.0/(1<<20), " MiB"),
			number(m, "memory", 1.0/(1<<20), " MiB"), number(m, "version", 1, ""), number(m, "lag", 1, ""), p.Detail)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "gateway %s reads/s, p99 %s; writer %s writes/s; quantiles are of the last five seconds\n",
		number(newest.Values["gateway"], "reads", 1, ""), number(newest.Values["gateway"], "p99", 1e3, " ms"),
		number(newest.Values["writer"], "writes", 1, ""))
	return nil
}

// number formats a measurement in a unit; what was not measured is a dash.
func number(values map[string]float64, name string, scale float64, unit string) string {
	v, ok := values[name]
	if !ok {
		return "-"
	}
	v *= scale
	if v == float64(int64(v)) {
		return fmt.Sprintf("%d%s", int64(v), unit)
	}
	return fmt.Sprintf("%.3g%s", v, unit)
}
