//go:build compose

package compose

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var page = "http://127.0.0.1:" + cmp.Or(os.Getenv("PAGE_PORT"), "3002")

// checkPage checks the dashboard, which is a service without any right over the others.
func checkPage(t *testing.T) {
	want := []string{"auditor ready", "gateway ready", "reader-1 ready", "reader-2 ready", "reader-3 ready", "reader-direct ready", "redis ready", "writer ready"}
	eventually(t, 30*time.Second, func() error {
		body, err := get(page + "/api/series?last=1")
		if err != nil {
			return err
		}
		var series struct {
			Processes []struct{ Name, State string }
			Controls  bool
			Digests   map[string]struct{ Value string }
			Agreement string
			Totals    struct{ Failed *int } // other checks provoke a 503
		}
		if err := json.Unmarshal([]byte(body), &series); err != nil {
			return err
		}
		var got []string
		for _, p := range series.Processes {
			got = append(got, p.Name+" "+p.State)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) || series.Controls {
			return fmt.Errorf("the dashboard shows %v (controls: %v), want %v", got, series.Controls, want)
		}
		if len(series.Digests) != 4 || series.Agreement != "identical" || series.Totals.Failed == nil {
			return fmt.Errorf("the dashboard shows the digests %v, %s, and not the failed reads: %s", series.Digests, series.Agreement, body)
		}
		return nil
	})
	for _, path := range []string{"/api/fault", "/api/scale", "/api/load"} {
		res, err := http.Post(page+path, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusMethodNotAllowed && res.StatusCode != http.StatusNotFound {
			t.Errorf("POST %s: status %d", path, res.StatusCode)
		}
	}
	res, err := http.Post(page+"/api/write", "application/json", strings.NewReader(`{"id":"from-the-page","title":"t","content":"c","author":"a"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	arrived := 0
	for events := bufio.NewScanner(res.Body); events.Scan(); {
		t.Log(events.Text())
		if strings.Contains(events.Text(), `"event":"arrived"`) {
			arrived++
		}
	}
	if arrived != 4 {
		t.Errorf("the post arrived in %d readers, want 4", arrived)
	}
}

// pageHasOutcome returns a condition for eventually: the dashboard has an event of a process that is over and in which no
// read failed. Whether it saw a killed reader leave or not answer depends on the moment.
func pageHasOutcome(process string) func() error {
	return func() error {
		body, err := get(page + "/api/events")
		if err != nil {
			return err
		}
		var story struct {
			Events []struct {
				Process, Outcome string
				Reads, Failed    int
			}
		}
		if err := json.Unmarshal([]byte(body), &story); err != nil {
			return err
		}
		for _, e := range story.Events {
			if e.Process == process && strings.Contains(e.Outcome, " after ") && e.Reads > 0 && e.Failed == 0 {
				return nil
			}
		}
		return fmt.Errorf("no event of %s with an outcome in %s", process, body)
	}
}
