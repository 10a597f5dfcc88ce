package gateway

import (
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"heavy-read-api/internal/test/eventually"
)

func TestMetricsMatchAPISIX(t *testing.T) {
	t.Parallel()
	r := newReader(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		w.Write(make([]byte, 100_000))
	})
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	for range 3 {
		do(t, http.MethodGet, g.url("/post?id=1"), nil)
	}
	do(t, http.MethodHead, g.url("/post-redis?id=1"), nil)
	do(t, http.MethodGet, g.url("/nowhere"), nil)

	var families map[string]*dto.MetricFamily
	eventually.True(t, "five requests are counted", func() bool { // a request is counted after its answer has been sent
		families = g.families(t)
		return samples(families["apisix_http_requests_total"])[""] == 5
	})
	for name, kind := range map[string]dto.MetricType{
		"apisix_http_requests_total":            dto.MetricType_GAUGE,
		"apisix_http_status":                    dto.MetricType_COUNTER,
		"apisix_http_latency":                   dto.MetricType_HISTOGRAM,
		"apisix_bandwidth":                      dto.MetricType_COUNTER,
		"apisix_upstream_status":                dto.MetricType_GAUGE,
		"apisix_nginx_http_current_connections": dto.MetricType_GAUGE,
		"http_connections":                      dto.MetricType_GAUGE,
		"http_connections_max":                  dto.MetricType_GAUGE,
		"http_connections_refused_total":        dto.MetricType_COUNTER,
		"go_goroutines":                         dto.MetricType_GAUGE,
		"process_cpu_seconds_total":             dto.MetricType_COUNTER,
		"service_info":                          dto.MetricType_GAUGE,
	} {
		if f := families[name]; f == nil || f.GetType() != kind {
			t.Errorf("%s is %v, want a %v", name, f.GetType(), kind)
		}
	}

	host, port, _ := net.SplitHostPort(r.addr)
	post, redis, none := "node="+r.addr+" route=post service=", "node="+r.addr+" route=post-redis service=", "node= route= service="
	want := map[string]map[string]float64{
		"apisix_http_status": {
			"code=200 consumer= matched_host= matched_uri=/post " + post:        3,
			"code=200 consumer= matched_host= matched_uri=/post-redis " + redis: 1,
			"code=404 consumer= matched_host= matched_uri= " + none:             1,
		},
		"apisix_http_latency": {
			"consumer= " + post + " type=request": 3, "consumer= " + post + " type=upstream": 3, "consumer= " + post + " type=apisix": 3,
			"consumer= " + redis + " type=request": 1, "consumer= " + redis + " type=upstream": 1, "consumer= " + redis + " type=apisix": 1,
			"consumer= " + none + " type=request": 1, "consumer= " + none + " type=apisix": 1,
		},
		"apisix_upstream_status": {"ip=" + host + " name=/upstreams/reader port=" + port: 1},
	}
	for name, values := range want {
		if got := samples(families[name]); !maps.Equal(got, values) {
			t.Errorf("%s\n got %v\nwant %v", name, got, values)
		}
	}

	var bounds []float64
	for _, b := range families["apisix_http_latency"].GetMetric()[0].GetHistogram().GetBucket() {
		bounds = append(bounds, b.GetUpperBound())
	}
	if want := []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000, 60000}; !slices.Equal(bounds[:len(bounds)-1], want) {
		t.Errorf("buckets %v, want %v and +Inf", bounds, want)
	}

	bandwidth := samples(families["apisix_bandwidth"])
	for _, test := range []struct {
		labels   string
		min, max float64
	}{
		{"consumer= " + post + " type=egress", 300_000, 303_000},
		{"consumer= " + post + " type=ingress", 3 * 50, 3 * 300},
		{"consumer= " + redis + " type=egress", 50, 500}, // the answer to a HEAD has no body
	} {
		if got := bandwidth[test.labels]; got < test.min || got > test.max {
			t.Errorf("bandwidth of %s is %v, want %v to %v", test.labels, got, test.min, test.max)
		}
	}
}

func TestLatencyIsInMilliseconds(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	r := newReader(t, func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	})
	g := start(t, Config{Readers: []string{r.addr}, Timeout: patience})
	g.awaitReady(t, 1)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		fetch(http.MethodGet, g.url("/post?id=1"), nil, nil)
	}()
	<-arrived
	// The reader takes at least as long as several rounds of checks.
	for range 3 {
		r.notReady.Store(true)
		g.awaitReady(t, 0)
		r.notReady.Store(false)
		g.awaitReady(t, 1)
	}
	close(release)
	<-answered
	sums := make(map[string]float64)
	eventually.True(t, "the request is counted", func() bool {
		f := g.families(t)["apisix_http_latency"]
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "type" {
					sums[l.GetValue()] = m.GetHistogram().GetSampleSum()
				}
			}
		}
		return len(sums) == 3
	})
	for kind, sum := range sums {
		if sum != math.Trunc(sum) {
			t.Errorf("%s is %v ms, want whole milliseconds, as in APISIX", kind, sum)
		}
	}
	// The changes of readiness take at least four checks, 20 ms apart.
	if sums["upstream"] < 20 || sums["request"] < sums["upstream"] || sums["apisix"] > sums["request"]-sums["upstream"]+0.001 {
		t.Errorf("latencies %v, want most of the request to be spent on the reader", sums)
	}
}

func TestUpstreamStatusFollowsTheList(t *testing.T) {
	t.Parallel()
	readers, addrs := newReaders(t, 3)
	path := filepath.Join(t.TempDir(), "nodes")
	replace(t, path, strings.Join(addrs, "\n"))
	g := start(t, Config{NodesFile: path})
	want := func(values ...float64) {
		t.Helper()
		expected := make(map[string]float64)
		for i, value := range values {
			host, port, _ := net.SplitHostPort(addrs[i])
			expected["ip="+host+" name=/upstreams/reader port="+port] = value
		}
		var got map[string]float64
		eventually.True(t, "upstream status", func() bool {
			got = samples(g.families(t)["apisix_upstream_status"])
			return maps.Equal(got, expected)
		})
	}
	want(1, 1, 1)
	readers[1].notReady.Store(true)
	want(1, 0, 1)
	replace(t, path, addrs[0]+"\n"+addrs[1])
	want(1, 0)
	replace(t, path, addrs[0])
	want(1)
}

func TestConnectionsByState(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	r := newReader(t, func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	})
	g := start(t, Config{Readers: []string{r.addr}, Timeout: patience})
	g.awaitReady(t, 1)
	want := func(reading, writing, waiting, accepted float64) {
		t.Helper()
		expected := map[string]float64{
			"state=reading": reading, "state=writing": writing, "state=waiting": waiting,
			"state=active": reading + writing + waiting, "state=accepted": accepted, "state=handled": accepted,
		}
		var got map[string]float64
		eventually.True(t, "connections", func() bool {
			got = samples(g.families(t)["apisix_nginx_http_current_connections"])
			return maps.Equal(got, expected)
		})
	}
	want(0, 0, 0, 0)
	var conns []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	want(3, 0, 0, 3)
	for _, conn := range conns[:2] {
		io.WriteString(conn, "GET /post?id=1 HTTP/1.1\r\nHost: x\r\n\r\n")
		<-arrived
	}
	want(1, 2, 0, 3)
	release <- struct{}{}
	want(1, 1, 1, 3)
	release <- struct{}{}
	want(1, 0, 2, 3)
	conns[0].Close()
	conns[2].Close()
	want(0, 0, 1, 3)
}
