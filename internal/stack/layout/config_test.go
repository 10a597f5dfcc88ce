package layout

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseConfigRefuses(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no readers", []string{"-readers=0"}, "READERS=0: between 1 and 20"},
		{"too many readers", []string{"-readers=21"}, "READERS=21"},
		{"no port", []string{"-writer-port=0"}, "WRITER_PORT: 0 is not a TCP port"},
		{"a port twice", []string{"-writer-port=9080"}, "both use port 9080"},
		{"a port among the readers'", []string{"-gateway-port=8090"}, "both use port 8090"},
		{"the last readers have no port", []string{"-reader-port=65530"}, "READER_PORT: 65536 is not a TCP port"},
		{"a word for a port", []string{"-gateway-port=abc"}, "it must be a number between 1 and 65535"},
		{"a word for the readers", []string{"-readers=x"}, "it must be a number between 1 and 20"},
		{"a word for the replicas", []string{"-redis-min-replicas=x"}, "it must be a number between 0 and 2"},
		{"layout", []string{"-redis=ring"}, "REDIS=ring: use single, sentinel or cluster"},
		{"a layout and another Redis", []string{"-redis=sentinel", "-redis-addr=a:1"}, "unset one of them"},
		{"more replicas than there are", []string{"-redis=sentinel", "-redis-min-replicas=3"}, "use 0 to 2"},
		{"a Sentinel's port", []string{"-redis=sentinel", "-redis-port=26377"}, "REDIS_PORT (the first of 3 ports) and SENTINEL_PORT (the first of 3 ports) both use port 26379"},
		{"a port of the bus", []string{"-redis=cluster", "-redis-bus-port=6384"}, "both use port 6384"},
		{"level", []string{"-log-level=loud"}, "use debug, info, warn or error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseConfig(tt.args, func(string) string { return "" })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// A port of the stack's own Redis matters only when there is one.
func TestExternalRedisNeedsNoPort(t *testing.T) {
	c, err := ParseConfig([]string{"-redis-addr=10.0.0.1:6379,10.0.0.2:6379", "-redis-port=8080"}, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	if c.OwnRedis() || Getenv(c.childEnv(), "REDIS_ADDR") != "10.0.0.1:6379,10.0.0.2:6379" {
		t.Errorf("children get REDIS_ADDR=%s", Getenv(c.childEnv(), "REDIS_ADDR"))
	}
}

// All readers of a stack start from one file, also behind relays, whose addresses change with each start.
func TestReadersShareTheirFile(t *testing.T) {
	cfg := testConfig(t, "REDIS_SERVER=/bin/true")
	first, err := cfg.Reader(1)
	if err != nil {
		t.Fatal(err)
	}
	direct, err := cfg.direct()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"CACHE_SNAPSHOT_DIR", "CACHE_SNAPSHOT_SOURCE"} {
		if a, b := Getenv(first.Env, key), Getenv(direct.Env, key); a == "" || a != b {
			t.Errorf("%s is %q and %q, want one for both", key, a, b)
		}
	}
}

// The writer redirects reads to the gateway, or to the user's READER_URL.
func TestWriterKnowsWherePostsAreRead(t *testing.T) {
	for env, want := range map[string]string{
		"READER_URL=":                      "http://127.0.0.1:%d",
		"READER_URL=https://posts.example": "https://posts.example",
	} {
		cfg := testConfig(t, env)
		s, err := cfg.writer()
		if err != nil {
			t.Fatal(err)
		}
		if want = strings.Replace(want, "%d", fmt.Sprint(cfg.GatewayPort), 1); Getenv(append(cfg.childEnv(), s.Env...), "READER_URL") != want {
			t.Errorf("%s: the writer does not have READER_URL=%s", env, want)
		}
	}
}

// An empty folder turns the file off, as it does for a reader that is started by hand.
func TestSnapshotFileCanBeTurnedOff(t *testing.T) {
	for setting, want := range map[string]string{"OTHER=x": SnapshotFolder, "CACHE_SNAPSHOT_DIR=": "", "CACHE_SNAPSHOT_DIR=/a": "/a"} {
		cfg := testConfig(t, "REDIS_SERVER=/bin/true")
		cfg.Env = append(cfg.Env, setting)
		reader, err := cfg.Reader(1)
		if err != nil {
			t.Fatal(err)
		}
		if got := Getenv(reader.Env, "CACHE_SNAPSHOT_DIR"); got != want && got != cfg.File(want) {
			t.Errorf("%s: the reader's folder is %q, want %q", setting, got, want)
		}
	}
}
