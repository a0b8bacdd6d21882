package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Mosquitto is Debian's MQTT broker as a child process on a loopback address that it keeps over restarts.
// Nothing is persistent and no queue is limited: a killed broker forgets every session, and a living one
// drops nothing. Its methods are called from one goroutine.
type Mosquitto struct {
	addr string
	dir  string
	log  tail
	proc *process
}

// LookMosquitto returns the path of the broker, which Debian keeps outside the PATH of a user.
func LookMosquitto() (string, error) {
	if path, err := exec.LookPath("mosquitto"); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/mosquitto")
}

// StartMosquitto starts a broker whose files are in dir. more are further lines of its configuration.
func StartMosquitto(dir string, more ...string) (*Mosquitto, error) {
	addr, err := freeAddr(ownHost())
	if err != nil {
		return nil, err
	}
	m := &Mosquitto{addr: addr, dir: dir}
	return m, m.Start(more...)
}

// Addr returns the broker's address ("host:port").
func (m *Mosquitto) Addr() string { return m.addr }

// Start starts the broker again after Kill or Stop, with further lines of configuration.
func (m *Mosquitto) Start(more ...string) error {
	path, err := LookMosquitto()
	if err != nil {
		return err
	}
	host, port, _ := strings.Cut(m.addr, ":")
	conf := fmt.Sprintf("listener %s %s\npersistence false\nmax_queued_messages 0\nmax_inflight_messages 0\n"+
		"set_tcp_nodelay true\nlog_dest stderr\nlog_type error\nlog_type warning\nlog_type notice\n", port, host)
	anonymous := "allow_anonymous true\n"
	for _, line := range more {
		conf += line + "\n"
		if line == "allow_anonymous false" {
			anonymous = ""
		}
	}
	if os.Getuid() == 0 {
		conf += "user root\n" // else it becomes a user who cannot read the test's directory
	}
	file := filepath.Join(m.dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(conf+anonymous), 0o600); err != nil {
		return err
	}
	if m.proc, err = start(&m.log, nil, nil, path, "-c", file); err != nil {
		return err
	}
	return awaitListener(m.proc, m.Addr(), 10*time.Second)
}

// Kill ends the broker with SIGKILL. It is a no-op when the broker does not run.
func (m *Mosquitto) Kill() {
	if m.proc != nil && m.proc.running() {
		m.proc.kill()
	}
}

// Freeze stops the broker's process (SIGSTOP): it keeps its connections and answers nothing.
func (m *Mosquitto) Freeze() { m.proc.signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (m *Mosquitto) Thaw() { m.proc.signal(syscall.SIGCONT) }
