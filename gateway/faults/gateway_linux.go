package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Build makes the binary of cmd/millrace in dir and returns its path. race builds it with the race detector; more is
// given to go build. FAULTS_GOARCH in the environment is the processor it is built for, such as 386, which has 32 bits like an old ARM box.
func Build(dir string, race bool, more ...string) (string, error) {
	args := append([]string{"build", "-o", dir + "/"}, more...)
	if race {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "millrace/cmd/millrace")...)
	if arch := os.Getenv("FAULTS_GOARCH"); arch != "" {
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	}
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cmd/millrace: %w: %s", err, out)
	}
	return dir + "/millrace", nil
}

// Gateway is the process under test. Its methods are called from one goroutine.
type Gateway struct {
	Binary string
	Config string              // file
	Web    string              // host:port of its pages
	Env    []string            // beyond the test's own, "NAME=value"
	User   *syscall.Credential // nil = the test's own

	log  tail
	proc *process
}

// Start starts the gateway; it does not wait for anything.
func (g *Gateway) Start() error {
	p, err := start(&g.log, g.Env, g.User, g.Binary, "run", "--config", g.Config, "--log-level", "info")
	if err != nil {
		return err
	}
	g.proc = p
	return nil
}

// Running tells whether the process lives.
func (g *Gateway) Running() bool { return g.proc != nil && g.proc.running() }

// Kill ends the gateway with SIGKILL and returns when that was. It is a no-op when it does not run.
func (g *Gateway) Kill() time.Time {
	at := time.Now()
	if g.Running() {
		g.proc.kill()
	}
	return at
}

// Stop asks the gateway to end (SIGTERM) and returns its exit code.
func (g *Gateway) Stop(patience time.Duration) (code int, err error) {
	g.proc.signal(syscall.SIGTERM)
	return g.Wait(patience)
}

// Signal sends any signal.
func (g *Gateway) Signal(s syscall.Signal) { g.proc.signal(s) }

// Wait waits for the gateway to end by itself and returns its exit code.
func (g *Gateway) Wait(patience time.Duration) (code int, err error) {
	code, ok := g.proc.wait(patience)
	if !ok {
		return 0, fmt.Errorf("wait for the gateway to end: it still runs after %s", patience)
	}
	return code, nil
}

// Log returns the end of what the gateway printed, over all its starts.
func (g *Gateway) Log() string { return g.log.String() }

// Crash returns the first line of a crash in the log: a panic, a fatal error or a data race; "" for none.
func (g *Gateway) Crash() string {
	for line := range strings.Lines(g.log.String()) {
		for _, sign := range []string{"panic:", "fatal error:", "DATA RACE", "SIGSEGV", "SIGBUS"} {
			if strings.Contains(line, sign) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}

// Snapshot is what the tests read of /api/v1/snapshot.
type Snapshot struct {
	Epoch   string `json:"epoch"`
	Devices []struct {
		Name       string `json:"name"`
		Reason     string `json:"reason"`
		Polled     uint64 `json:"polled"`
		Suppressed uint64 `json:"suppressed"`
		Accounts   []struct {
			Before    uint64            `json:"before"`
			Delivered uint64            `json:"delivered"`
			Buffered  uint64            `json:"buffered"`
			InFlight  uint64            `json:"in_flight"`
			Dropped   map[string]uint64 `json:"dropped"`
		} `json:"accounts"`
	} `json:"devices"`
	Destinations []struct {
		State          string `json:"state"`
		LastError      string `json:"last_error"`
		BacklogRecords uint64 `json:"backlog_records"`
		Reconnects     uint64 `json:"reconnects"`
		Breakers       []struct {
			NextTry time.Time `json:"next_try"`
		} `json:"breakers"`
	} `json:"destinations"`
	Buffer struct {
		Bytes        int64  `json:"bytes"`
		MaxBytes     int64  `json:"max_bytes"`
		Segments     int    `json:"segments"`
		Commits      uint64 `json:"commits"`
		BytesWritten uint64 `json:"bytes_written"`
		Health       string `json:"health"`
		Corrupt      uint64 `json:"corrupt"`
	} `json:"buffer"`
	Process struct {
		RSSBytes   uint64 `json:"rss_bytes"`
		OpenFiles  int    `json:"open_files"`
		Goroutines int    `json:"goroutines"`
	} `json:"process"`
}

// Imbalance returns the readings that the gateway's own ledger does not explain: 0 when every account is
// balanced. A poll on its way shows for a moment.
func (s *Snapshot) Imbalance() int64 {
	var sum int64
	for _, d := range s.Devices {
		for _, a := range d.Accounts {
			known := d.Suppressed + a.Before + a.Delivered + a.Buffered + a.InFlight
			for _, n := range a.Dropped {
				known += n
			}
			diff := int64(d.Polled - known)
			sum += max(diff, -diff)
		}
	}
	return sum
}

// Dropped returns the readings dropped for the given cause, as the gateway's own ledger counts them.
func (s *Snapshot) Dropped(cause string) (n uint64) {
	for _, d := range s.Devices {
		for _, a := range d.Accounts {
			n += a.Dropped[cause]
		}
	}
	return n
}

// Snapshot asks the gateway for its state.
func (g *Gateway) Snapshot() (*Snapshot, error) {
	var s Snapshot
	_, b, err := g.Get("/api/v1/snapshot")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read the gateway's snapshot: %w", err)
	}
	return &s, nil
}

// Get asks for one of the gateway's pages and returns its status and body.
func (g *Gateway) Get(path string) (status int, body []byte, err error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + g.Web + path)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	return resp.StatusCode, body, err
}

// PeakRSS returns the largest resident memory of the running process in bytes (VmHWM), 0 when unknown.
func (g *Gateway) PeakRSS() int64 {
	if !g.Running() {
		return 0
	}
	return statusBytes(g.proc.cmd.Process.Pid, "VmHWM:")
}

// CPU returns the processor time that the running process has used, 0 when unknown.
func (g *Gateway) CPU() time.Duration {
	if !g.Running() {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.proc.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ") // proc(5): the fields after the name
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	var user, system int64
	_, _ = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	return time.Duration(user+system) * time.Second / 100 // USER_HZ is 100 everywhere
}
