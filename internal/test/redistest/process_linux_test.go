package redistest

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const roleVariable = "REDISTEST_ROLE"

// TestMain lets a child process act as a test binary that crashes.
func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		// The parallel tests wait for failovers, so all of them run at once, however few the cores.
		_ = flag.Set("test.parallel", "8") // a default; -parallel overrides it
		os.Exit(m.Run())
	case "killed":
		fmt.Println(Start(&doomedTest{dir: os.Args[1]}).Addr())
		select {}
	case "panic":
		fmt.Println(Start(&doomedTest{dir: os.Args[1]}).Addr())
		panic("a test went wrong")
	}
}

// doomedTest is a testing.TB that never runs its Cleanup functions.
type doomedTest struct {
	testing.TB
	dir string
}

func (d *doomedTest) Helper()                   {}
func (d *doomedTest) Cleanup(func())            {}
func (d *doomedTest) TempDir() string           { return d.dir }
func (d *doomedTest) Fatal(args ...any)         { panic(fmt.Sprint(args...)) }
func (d *doomedTest) Fatalf(s string, a ...any) { panic(fmt.Sprintf(s, a...)) }

func TestServerDiesWithTheTestBinary(t *testing.T) {
	Require(t)
	for _, role := range []string{"killed", "panic"} {
		t.Run(role, func(t *testing.T) {
			child := exec.Command(os.Args[0], t.TempDir())
			child.Env = append(os.Environ(), roleVariable+"="+role)
			out, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			addr, err := bufio.NewReader(out).ReadString('\n')
			if role == "killed" {
				_ = child.Process.Kill()
			}
			_ = child.Wait()
			if err != nil {
				t.Fatalf("the child printed no address: %v", err)
			}
			addr = strings.TrimSpace(addr)

			deadline := time.Now().Add(readyTimeout)
			for {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					return // the server has exited
				}
				_ = conn.Close()
				if time.Now().After(deadline) {
					t.Fatalf("redis-server on %s outlived the test binary", addr)
				}
				time.Sleep(pollInterval)
			}
		})
	}
}
