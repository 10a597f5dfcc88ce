package manifests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAddresses runs address.sh with the variables that the kubelet sets.
func TestAddresses(t *testing.T) {
	start := filepath.Join(t.TempDir(), "start.sh")
	if err := os.WriteFile(start, []byte(`echo "${REDIS_ADDRESS:-none} ${REDIS_FIRST_PRIMARY:-none} ${SENTINEL_ADDRESS:-none} $*"`), 0o600); err != nil {
		t.Fatal(err)
	}
	services := []string{"REDIS_0_SERVICE_HOST=10.0.0.10", "REDIS_2_SERVICE_HOST=10.0.0.12", "SENTINEL_1_SERVICE_HOST=10.0.0.21"}
	for _, tt := range []struct{ env, want, fails string }{
		{"REDIS_ADDRESS=redis-2", "10.0.0.12 10.0.0.10 none --port 1", ""},
		{"SENTINEL_ADDRESS=sentinel-1", "none 10.0.0.10 10.0.0.21 --port 1", ""},
		{"REDIS_ADDRESS=redis-1", "", "error: REDIS_1_SERVICE_HOST is not set, because there was no Service redis-1"},
	} {
		cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(Root, "overlays/sentinel/address.sh"), "--port", "1")
		cmd.Env = append(services, tt.env, "REDIS_FIRST_PRIMARY=redis-0", "START="+start, "PATH="+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err == nil && (got != tt.want || tt.fails != "") {
			t.Errorf("%s: start.sh runs with %q, want %q", tt.env, got, tt.want)
		} else if err != nil && (tt.fails == "" || !strings.HasPrefix(got, tt.fails)) {
			t.Errorf("%s: %v: %q, want %q", tt.env, err, got, tt.fails)
		}
	}
}
