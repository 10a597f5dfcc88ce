package publisher

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/clock"
	"heavy-read-api/internal/test/clocktest"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// After a step of the writer's wall clock, a write whose deadline has passed does not take effect, and one that is in time
// is not refused.
func TestDeadlineSurvivesAClockStep(t *testing.T) {
	redistest.Require(t)
	for _, step := range []time.Duration{30 * time.Second, -30 * time.Second} {
		t.Run(step.String(), func(t *testing.T) {
			server := redistest.Start(t)
			db := server.Client(t)
			const timeout = time.Second
			p, err := New(Config{Redis: nodetest.New(t, server.Addr()), Timeout: timeout})
			if err != nil {
				t.Fatal(err)
			}
			write(t, p, set("a", "1")) // its reply carries the time of Redis
			p.clock.now = func() time.Time { return clocktest.Step(t, time.Now(), step) }
			write(t, p, set("a", "2"))

			p.clock.now = func() time.Time { return clocktest.Step(t, time.Now(), 2*step) }
			runs := scripts(t, db)
			server.Pause()
			began := time.Now()
			if _, err := p.Write(t.Context(), set("a", "late")); !errors.Is(err, ErrUnknown) {
				t.Fatalf("a write to a paused Redis: %v", err)
			}
			eventually.True(t, "end of the deadline", func() bool { return time.Since(began) > timeout+50*time.Millisecond })
			server.Resume()
			eventually.True(t, "run of the late script", func() bool { return scripts(t, db) > runs })
			if got := write(t, p, set("a", "3"))[0].Token.Version; got != 3 {
				t.Errorf("version %d after two writes and one that reached Redis after its deadline", got)
			}
		})
	}
}

// scripts returns the number of scripts that the server has run by digest.
func scripts(t testing.TB, db *redis.Client) (calls int) {
	t.Helper()
	info, err := db.InfoMap(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(info["Commandstats"]["cmdstat_evalsha"], "calls=%d,", &calls); err != nil {
		t.Fatalf("calls of EVALSHA in %v: %v", info, err)
	}
	return calls
}

// A reading of a node's clock is used for that node only, and not for long.
func TestReadingsOfTheServerClock(t *testing.T) {
	var nodes [2]*redis.Client
	var servers [2]*redistest.Embedded
	base := time.Now().Truncate(time.Second)
	for i := range nodes {
		servers[i] = redistest.StartEmbedded(t)
		servers[i].SetTime(base.Add(time.Duration(i) * time.Hour))
		nodes[i] = servers[i].Client(t)
	}
	var later time.Duration
	c := serverClock{now: func() time.Time { return time.Now().Add(later) }, measured: clock.New()}
	// shows checks that the clock of a node reads base plus ahead, with a tolerance for the time of this test.
	shows := func(node int, ahead time.Duration) {
		t.Helper()
		s, err := c.read(t.Context(), nodes[node])
		if err != nil {
			t.Fatal(err)
		}
		if got := time.UnixMilli(s.millis(c.now())).Sub(base); got < ahead-time.Millisecond || got > ahead+time.Minute {
			t.Errorf("the clock of node %d is %v ahead, want %v", node, got, ahead)
		}
	}
	shows(0, 0)
	shows(1, time.Hour)
	shows(0, 0)

	servers[0].SetTime(base.Add(-time.Hour))
	shows(0, 0) // the last reading is still valid
	later += maxReadingAge
	shows(0, -time.Hour)

	servers[0].SetTime(base.Add(time.Hour))
	c.forget()
	shows(0, time.Hour)
}
