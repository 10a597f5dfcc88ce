// Package modules limits the modules that the shipped programs link.
package modules

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What each program may link. A shorter list is always fine; before a list grows, ask whether every
// deployment should carry the module.
var (
	base = []string{ // configuration, memory limit, HTTP and metrics
		"github.com/KimMachineGun/automemlimit",
		"github.com/beorn7/perks",
		"github.com/cespare/xxhash/v2",
		"github.com/dustin/go-humanize",
		"github.com/munnerz/goautoneg",
		"github.com/pandatix/go-abnf",
		"github.com/pbnjay/memory",
		"github.com/prometheus/client_golang",
		"github.com/prometheus/client_model",
		"github.com/prometheus/common",
		"github.com/prometheus/procfs",
		"golang.org/x/sync",
		"golang.org/x/sys",
		"google.golang.org/protobuf",
	}
	redis    = []string{"github.com/redis/go-redis/v9", "go.uber.org/atomic"}
	json     = []string{"github.com/go-json-experiment/json"}
	store    = []string{"github.com/dgraph-io/ristretto/v2"}
	embedded = []string{"github.com/alicebob/miniredis/v2", "github.com/yuin/gopher-lua"}
)

// TestLinkedModules keeps the modules of the benchmark and of the browser tests, which are large, out of
// what ships: they share this go.mod.
func TestLinkedModules(t *testing.T) {
	for _, tt := range []struct {
		program string
		allowed []string
	}{
		{"writer", slices.Concat(base, redis, json)},
		{"reader", slices.Concat(base, redis, json, store)},
		{"auditor", slices.Concat(base, redis, store)},
		{"failover", slices.Concat(base, redis)},
		{"dashboard", base},
		{"internal/gateway", base}, // part of local; links neither Redis nor the cache
		{"local", slices.Concat(base, redis, json, store, embedded)},
	} {
		t.Run(tt.program, func(t *testing.T) {
			list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "./"+tt.program)
			list.Dir = "../../.."
			out, err := list.Output()
			if err != nil {
				t.Fatal(err)
			}
			linked := strings.Fields(string(out))
			slices.Sort(linked)
			linked = slices.Compact(linked)
			if len(linked) == 0 {
				t.Fatal("no module is linked: the list is wrong")
			}
			for _, module := range linked {
				if !slices.Contains(tt.allowed, module) {
					t.Errorf("%s links %s", tt.program, module)
				}
			}
		})
	}
}
