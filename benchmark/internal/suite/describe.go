package suite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/target"
)

// describe adds the machine and the workload to the report. Values that cannot be determined stay empty.
func (s *suite) describe(ctx context.Context) {
	m := &s.report.Machine
	m.Cores, m.Go = runtime.NumCPU(), runtime.Version()
	m.Kernel = output(ctx, "uname", "-srm")
	m.CPU = procLine("/proc/cpuinfo", `model name\s*:\s*(.+)`)
	if kB, err := strconv.ParseFloat(procLine("/proc/meminfo", `MemTotal:\s*(\d+) kB`), 64); err == nil {
		m.Memory = fmt.Sprintf("%.1f GB", kB*1024/1e9)
	}
	if runtime.GOOS == "darwin" {
		m.CPU = output(ctx, "sysctl", "-n", "machdep.cpu.brand_string")
	}
	m.Wrk = wrkVersion(ctx)
	m.Commit = output(ctx, "git", "rev-parse", "--short=12", "HEAD")
	if m.Commit != "" && output(ctx, "git", "status", "--porcelain", "--untracked-files=no") != "" {
		m.Commit += " with changes"
	}
	m.Runtime = s.runtime.Name()
	if m.Runtime == target.InDocker {
		s.note("Requests to the stack pass Docker's port forwarding; those to the benchmark's own processes do not.")
	}
	if readers, err := s.runtime.Readers(ctx); err == nil {
		m.Stack = fmt.Sprintf("%d readers behind the gateway, and one that is accessed directly", len(readers))
	}
	if options, err := s.redisOptions(ctx); err == nil {
		m.RedisVersion = redisVersion(ctx, options)
	}

	w := &s.report.Workload
	w.Posts, w.Source, w.Connections, w.Threads = s.posts, s.mix.Source, s.connections, s.threads
	w.Round, w.Rounds, w.Rate = s.round, s.rounds, s.rate
	w.WrkCommand = "wrk " + strings.Join(s.closed(s.addresses.Direct, "/post", 1).Args("benchmark/internal/load/wrk.lua"), " ")
	sizes := make([]int, min(s.posts, 20_000))
	sum := 0
	for rank := range sizes {
		sizes[rank] = s.mix.Size(rank)
		sum += sizes[rank]
	}
	slices.Sort(sizes)
	w.MeanBytes, w.MedianBytes = float64(sum)/float64(len(sizes)), sizes[len(sizes)/2]
	sum = 0
	drawn := s.reads.Draw(1, 20_000)
	for _, rank := range drawn {
		sum += s.mix.Size(rank)
	}
	w.ReadBytes = float64(sum) / float64(len(drawn))
}

// output returns the first line of a command's output, or "" when it fails.
func output(ctx context.Context, name string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// wrkVersion returns wrk's version. The error is ignored, because wrk -v always exits with status 1.
func wrkVersion(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, "wrk", "-v").CombinedOutput()
	return string(regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+`).Find(out))
}

func procLine(path, pattern string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	if m := regexp.MustCompile(pattern).FindSubmatch(b); m != nil {
		return strings.TrimSpace(string(m[1]))
	}
	return ""
}

func redisVersion(ctx context.Context, options *redis.Options) string {
	client := redis.NewClient(options)
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	info, err := client.Info(ctx, "server").Result()
	if err != nil {
		return "" // the embedded Redis does not implement INFO
	}
	if m := regexp.MustCompile(`redis_version:(\S+)`).FindStringSubmatch(info); m != nil {
		return m[1]
	}
	return ""
}
