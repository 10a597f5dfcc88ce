package target

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// local is the stack without Docker. Its supervisor tells what runs, scales, and starts again what
// died.
type local struct {
	addresses Addresses
}

// process is a process as the supervisor's /api/state tells it.
type process struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	Address  string `json:"address"`
	PID      int    `json:"pid"`
	State    string `json:"state"`
	External bool   `json:"external"`
}

func (l *local) Name() string { return "local" }

func (l *local) processes(ctx context.Context) ([]process, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.addresses.Dashboard+"/api/state", nil)
	if err != nil {
		return nil, err
	}
	var state struct {
		Processes []process `json:"processes"`
	}
	if err := call(req, &state); err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil, ErrNotRunning
		}
		return nil, fmt.Errorf("ask the supervisor what runs: %w", err)
	}
	return state.Processes, nil
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
		return fmt.Errorf("%s answers %s: %s", req.URL, res.Status, bytes.TrimSpace(body))
	}
	return json.Unmarshal(body, into)
}

func (l *local) find(ctx context.Context, name string) (process, error) {
	all, err := l.processes(ctx)
	if err != nil {
		return process{}, err
	}
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
	}
	return process{}, fmt.Errorf("the stack has no process %s", name)
}

func (l *local) Readers(ctx context.Context) ([]Reader, error) {
	all, err := l.processes(ctx)
	if err != nil {
		return nil, err
	}
	var readers []Reader
	for _, p := range all {
		if p.Role == "reader" && p.Address != l.addresses.Direct {
			readers = append(readers, Reader{Name: p.Name, Addr: p.Address})
		}
	}
	return readers, nil
}

func (l *local) Redis(ctx context.Context) (RedisServer, error) {
	p, err := l.find(ctx, Redis)
	if err != nil {
		return RedisServer{}, err
	}
	first, _, _ := strings.Cut(p.Address, ",")
	if !p.External {
		return RedisServer{Addr: first}, nil // the stack's own knows no password
	}
	return RedisServer{first, l.addresses.RedisUsername, l.addresses.RedisPassword}, nil
}

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
		return nil, fmt.Errorf("%s does not run", name)
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("kill %s (pid %d): %w", name, p.PID, err)
	}
	return func(ctx context.Context) error { // the supervisor starts it again
		return await(ctx, 30*time.Second, name+" running again", func(ctx context.Context) error {
			now, err := l.find(ctx, name)
			if err == nil && (now.PID == 0 || now.PID == p.PID) {
				err = errors.New("it has not been started again")
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
