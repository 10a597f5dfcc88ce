package local

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/stack/control"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

var (
	chaosTime = flag.Duration("chaos", time.Minute, "time for which TestChaos injects faults")
	chaosSeed = flag.Uint64("chaos.seed", 0, "seed of the faults of TestChaos; 0 draws one")
)

// audited is a part of the auditor's /status.
type audited struct {
	Identical *bool    `json:"identical"`
	Summary   string   `json:"summary"`
	Redis     *float64 `json:"redis_agreed_seconds"`
}

func askAuditor(addr string) (v audited, differences string, err error) {
	res, err := http.Get("http://" + addr + "/status")
	if err != nil {
		return v, "", err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		return v, "", err
	}
	metrics, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return v, "", err
	}
	defer metrics.Body.Close()
	text, err := io.ReadAll(metrics.Body)
	if _, rest, found := strings.Cut(string(text), "\naudit_differences_total "); found {
		differences, _, _ = strings.Cut(rest, "\n")
	}
	return v, differences, err
}

// The auditor reports no difference while readers and Redis are killed, frozen and cut off, readers are added and removed,
// and writes go on. Afterwards all readers are identical with each other and with Redis.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	redistest.Require(t)
	cfg := testConfig(t, childEnvironment+"="+wholeStack, "READERS=3", "REDIS_SERVER=")
	cfg.FaultTime = 1500 * time.Millisecond
	run(t, cfg)
	readyState(t, cfg)
	addr := supervisor.Address(cfg.Port)
	if err := control.Load(t.Context(), addr, 200, 200); err != nil {
		t.Fatal(err)
	}
	identicalAgain(t, cfg, 4)

	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	rng := rand.New(rand.NewPCG(seed, seed))
	t.Logf("replay with -chaos.seed=%d", seed)
	done := map[string]int{}
	compared, asked := 0, 0
	next := time.Now()
	for end := time.Now().Add(*chaosTime); time.Now().Before(end); {
		if !time.Now().Before(next) {
			next = time.Now().Add(time.Duration(500+rng.IntN(2500)) * time.Millisecond)
			inject(t, cfg, rng, done)
		}
		eventually.Nil(t, func() error {
			v, differences, err := askAuditor(supervisor.Address(cfg.AuditorPort))
			if err != nil {
				return err
			}
			asked++
			if v.Identical != nil {
				compared++
			}
			if v.Identical != nil && !*v.Identical || differences != "0" {
				t.Fatalf("after %v the auditor reports %s differences: %s", done, differences, v.Summary)
			}
			return nil
		})
		<-time.After(50 * time.Millisecond) // pace of the questions
	}
	identicalAgain(t, cfg, 2)
	if len(done) < 4 || compared < asked/4 {
		t.Errorf("%v; readers were compared in %d of %d answers", done, compared, asked)
	}
	t.Logf("%v; readers were compared in %d of %d answers", done, compared, asked)
}

// inject injects a random fault, or adds or removes a reader. What is not possible at the moment is left out.
func inject(t *testing.T, cfg layout.Config, rng *rand.Rand, done map[string]int) {
	t.Helper()
	addr := supervisor.Address(cfg.Port)
	st, err := control.State(t.Context(), addr)
	if err != nil {
		return
	}
	readers := inRotation(st)
	kind, name := "", readers[rng.IntN(len(readers))]
	switch rng.IntN(8) {
	case 0, 1:
		kind = "kill"
	case 2, 3:
		kind = "freeze"
	case 4, 5:
		kind = "cut"
	case 6:
		kind, name = []string{"kill", "freeze"}[rng.IntN(2)], "redis"
	default:
		n := 2 + rng.IntN(4)
		if _, err := control.Scale(t.Context(), addr, n); err == nil {
			done["scale"]++
		}
		return
	}
	if err := control.Fault(t.Context(), addr, kind, name); err == nil {
		if name != "redis" {
			name = state.Reader
		}
		done[kind+" "+name]++
	}
}

// identicalAgain waits until at least n readers are compared and identical, with each other and with Redis, and no reader
// is left out.
func identicalAgain(t *testing.T, cfg layout.Config, n int) {
	t.Helper()
	eventually.Nil(t, func() error {
		v, _, err := askAuditor(supervisor.Address(cfg.AuditorPort))
		if err != nil {
			return err
		}
		var readers int
		_, _ = fmt.Sscanf(v.Summary, "%d readers identical at version", &readers)
		if readers < n || v.Redis == nil || strings.Contains(v.Summary, "unreachable") {
			return fmt.Errorf("the auditor says: %s", v.Summary)
		}
		return nil
	})
}
