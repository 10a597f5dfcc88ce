package target

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"heavy-read-api/benchmark/internal/machine"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/redisnode"
)

// local is the stack without Docker. Its supervisor lists the processes, scales the readers, and restarts
// processes that exit.
type local struct {
	root      string // folder of the Makefile
	addresses Addresses
}

// state is the response of the supervisor's /api/state.
type state struct {
	RunDir string `json:"run_dir"`
	Redis  struct {
		Layout     string   `json:"layout"` // "" when the stack did not start Redis
		Addrs      []string `json:"addrs"`
		MasterName string   `json:"master_name"`
	} `json:"redis"`
	Processes []process `json:"processes"`
}

// process is one process of the stack.
type process struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	Address  string `json:"address"`
	PID      int    `json:"pid"`
	State    string `json:"state"`
	External bool   `json:"external"`
}

func (l *local) Name() string { return "local" }

func (l *local) state(ctx context.Context) (state, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.addresses.Dashboard+"/api/state", nil)
	if err != nil {
		return state{}, err
	}
	var st state
	if err := call(req, &st); err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return state{}, ErrNotRunning
		}
		return state{}, fmt.Errorf("get the state of the supervisor: %w", err)
	}
	return st, nil
}

func call(req *http.Request, into any) error {
	res, err := Client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s returned %s: %s", req.URL, res.Status, bytes.TrimSpace(body))
	}
	return json.Unmarshal(body, into)
}

func (l *local) find(ctx context.Context, name string) (process, error) {
	st, err := l.state(ctx)
	if err != nil {
		return process{}, err
	}
	for _, p := range st.Processes {
		if p.Name == name {
			return p, nil
		}
	}
	return process{}, fmt.Errorf("the stack has no process %s", name)
}

func (l *local) Readers(ctx context.Context) ([]Reader, error) {
	st, err := l.state(ctx)
	if err != nil {
		return nil, err
	}
	var readers []Reader
	for _, p := range st.Processes {
		if p.Role == "reader" && p.Address != l.addresses.Direct {
			readers = append(readers, Reader{Name: p.Name, Addr: p.Address})
		}
	}
	return readers, nil
}

func (l *local) Redis(ctx context.Context) (RedisServer, error) {
	st, err := l.state(ctx)
	if err != nil {
		return RedisServer{}, err
	}
	if st.failsOver() {
		p, err := st.primary(ctx)
		if err != nil {
			return RedisServer{}, err
		}
		password, err := st.password()
		return RedisServer{Addr: p.Address, Password: password}, err
	}
	p, err := l.find(ctx, Redis)
	if err != nil {
		return RedisServer{}, err
	}
	first, _, _ := strings.Cut(p.Address, ",")
	if !p.External {
		password, err := st.password()
		return RedisServer{Addr: first, Password: password}, err
	}
	return RedisServer{first, l.addresses.RedisUsername, l.addresses.RedisPassword}, nil
}

// failsOver reports whether the stack runs several Redis servers, one of which takes over from a failed primary.
func (st state) failsOver() bool {
	return st.Redis.Layout == "sentinel" || st.Redis.Layout == "cluster"
}

// password reads the password of the stack's own Redis from the run folder.
func (st state) password() (string, error) {
	text, err := os.ReadFile(filepath.Join(st.RunDir, "redis.password"))
	if err != nil {
		return "", fmt.Errorf("read the password of Redis: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// primary returns the process of the primary. It finds the primary as the writer and the readers do.
func (st state) primary(ctx context.Context) (process, error) {
	password, err := st.password()
	if err != nil {
		return process{}, err
	}
	redis := redisconfig.Redis{
		Addr: st.Redis.Addrs, MasterName: st.Redis.MasterName, Password: password, SentinelPassword: password,
		Namespace: cmp.Or(os.Getenv("CACHE_NAMESPACE"), "posts"),
	}
	cfg := redis.Finder()
	cfg.Logger = slog.New(slog.DiscardHandler)
	finder, err := redisnode.New(cfg)
	if err != nil {
		return process{}, err
	}
	defer finder.Close()
	node, err := finder.Node(ctx)
	if err != nil {
		return process{}, err
	}
	for _, p := range st.Processes {
		if p.Address == node.Addr {
			return p, nil
		}
	}
	return process{}, fmt.Errorf("the primary is at %s, where the stack has no process", node.Addr)
}

func (l *local) Primary(ctx context.Context) (string, error) {
	st, err := l.state(ctx)
	if err != nil {
		return "", err
	}
	if !st.failsOver() {
		return "", ErrNoFailover
	}
	for _, p := range st.Processes {
		if (p.Role == "redis" || p.Role == "sentinel") && p.State != "ready" {
			return "", fmt.Errorf("%s is %s", p.Name, p.State)
		}
	}
	p, err := st.primary(ctx)
	return p.Name, err
}

// Processes returns the pid of the supervisor, which is the parent of all other processes of the stack.
func (l *local) Processes(ctx context.Context) ([]int, error) {
	st, err := l.state(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range st.Processes {
		if p.PID == 0 {
			continue
		}
		if supervisor, err := machine.Parent(p.PID); err == nil {
			return []int{supervisor}, nil
		}
	}
	return nil, nil
}

func (l *local) Failover(ctx context.Context) error { return stackScript(ctx, l.root, "failover") }

func (l *local) Scale(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.addresses.Dashboard+"/api/scale",
		strings.NewReader(`{"readers":`+strconv.Itoa(n)+`}`))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	var ignored any
	if err := call(req, &ignored); err != nil {
		return fmt.Errorf("scale to %d readers: %w", n, err)
	}
	return nil
}

func (l *local) Kill(ctx context.Context, name string) (func(context.Context) error, error) {
	p, err := l.find(ctx, name)
	if err != nil {
		return nil, err
	}
	if p.External {
		return nil, fmt.Errorf("%s at %s was not started by the stack, so it is not killed", name, p.Address)
	}
	if p.PID == 0 {
		return nil, fmt.Errorf("%s is not running", name)
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("kill %s (pid %d): %w", name, p.PID, err)
	}
	return func(ctx context.Context) error { // the supervisor restarts it
		return await(ctx, 30*time.Second, name+" running again", func(ctx context.Context) error {
			now, err := l.find(ctx, name)
			if err == nil && (now.PID == 0 || now.PID == p.PID) {
				err = errors.New("it has not been restarted")
			}
			if err != nil {
				return err
			}
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", now.Address)
			if err == nil {
				_ = conn.Close()
			}
			return err
		})
	}, nil
}
