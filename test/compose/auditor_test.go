//go:build compose

package compose

import (
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

var auditor = "http://127.0.0.1:" + cmp.Or(os.Getenv("AUDITOR_PORT"), "9093")

// checkAuditor checks the auditor, the endpoints of the readers that it asks, and its alerts.
func checkAuditor(t *testing.T) {
	if _, err := put("audited", "content"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, auditorCompares(4))
	readers, err := containers("reader-direct")
	if err != nil {
		t.Fatal(err)
	}
	body, err := get("http://" + readers[0].published()[0] + "/audit")
	if err != nil || !strings.Contains(body, `"digests":[{`) {
		t.Errorf("/audit of reader-direct: %.300s (%v)", body, err)
	}
	if a, err := send(http.MethodGet, gateway+"/audit", nil, ""); err != nil || a.status != http.StatusNotFound {
		t.Errorf("the gateway answers %d to /audit (%v)", a.status, err)
	}
	groups, err := ruleGroups()
	if err != nil {
		t.Fatal(err)
	}
	var alerts []string
	for _, group := range groups {
		for _, rule := range group.Rules {
			alerts = append(alerts, rule.Name)
		}
	}
	for _, name := range []string{"ReplicasDiffer", "MemoryDamaged", "AuditStale"} {
		if !slices.Contains(alerts, name) {
			t.Errorf("Prometheus has no alert %s", name)
		}
	}
}

// auditorCompares returns a condition for eventually: the auditor finds n readers identical with each other and with Redis.
func auditorCompares(n int) func() error {
	return func() error {
		body, err := get(auditor + "/status")
		if err != nil {
			return err
		}
		var a struct {
			Summary      string
			RedisSeconds *float64 `json:"redis_agreed_seconds"`
		}
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			return err
		}
		if !strings.HasPrefix(a.Summary, fmt.Sprintf("%d readers identical at version ", n)) || a.RedisSeconds == nil {
			return fmt.Errorf("the auditor says: %s", a.Summary)
		}
		return nil
	}
}
