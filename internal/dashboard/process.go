package dashboard

// States of a process.
const (
	Ready      = "ready"
	Degraded   = "degraded"   // ready, but not as it should be: Detail tells
	NotReady   = "not ready"  // it runs: Detail tells what is missing
	Restarting = "restarting" // it died (Detail: how) and is about to be started again
	Stopping   = "stopping"
)

// Process is one process of the stack as the supervisor sees it.
type Process struct {
	Name     string `json:"name"`
	Role     string `json:"role"`    // redis, sentinel, writer, reader or gateway
	Address  string `json:"address"` // host:port
	PID      int    `json:"pid,omitempty"`
	Restarts int    `json:"restarts"`
	State    string `json:"state"`
	Note     string `json:"note,omitempty"` // what it is at the moment, such as "primary"
	Detail   string `json:"detail,omitempty"`
	External bool   `json:"external,omitempty"` // not started by the stack
	Metrics  string `json:"-"`                  // URL of its metrics, "" when it has none
}

// Up reports whether the process does its job.
func (p Process) Up() bool { return p.State == Ready || p.State == Degraded }
