package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childArgs, in the environment, makes the test binary a millrace with these arguments, parted by line feeds.
const childArgs = "MILLRACE_TEST_ARGS"

// TestMain lets the test binary be started as millrace, so that signals reach a process of its own.
func TestMain(m *testing.M) {
	if args := os.Getenv(childArgs); args != "" {
		os.Exit(execute(strings.Split(args, "\n"), os.Stdout))
	}
	os.Exit(m.Run())
}

// patience is for what happens at once, on a machine that is very slow.
const patience = time.Minute

// TestHangup: SIGHUP reloads a gateway without a terminal, stops one whose terminal is gone, and is nothing under nohup.
func TestHangup(t *testing.T) {
	for _, c := range []struct {
		name            string
		terminal, nohup bool
		want            string // what the log says after the hang-up
		ends            bool
	}{
		{"service", false, false, `config reloaded`, false},
		{"terminal", true, false, `signal=hangup`, true},
		{"nohup", true, true, ``, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := startChild(t, filepath.Join(t.TempDir(), "s"), c.terminal, c.nohup)
			g.waitFor("gateway runs")
			if c.terminal {
				_ = g.terminal.Close() // and the kernel sends SIGHUP
			} else {
				_ = g.cmd.Process.Signal(syscall.SIGHUP)
			}
			g.waitFor(c.want)
			if !c.ends {
				_ = g.cmd.Process.Signal(syscall.SIGTERM)
				g.waitFor("signal=terminated")
			}
			g.endsWell()
			if said := strings.Count(g.log(), "SIGHUP was ignored"); c.nohup != (said == 1) {
				t.Errorf("it is said %d times that SIGHUP is ignored:\n%s", said, g.log())
			}
			if c.nohup && strings.Contains(g.log(), "hangup") {
				t.Errorf("under nohup a hang-up is taken for something:\n%s", g.log())
			}
		})
	}
}

// child is a gateway in a process of its own.
type child struct {
	t        *testing.T
	cmd      *exec.Cmd
	config   string
	file     string   // its log
	terminal *os.File // the other side of its terminal
	ended    chan error
}

func startChild(t *testing.T, store string, terminal, nohup bool) *child {
	dir := t.TempDir()
	g := &child{t: t, config: filepath.Join(dir, "millrace.yaml"), file: filepath.Join(dir, "log"), ended: make(chan error, 1)}
	writeFile(t, g.config, fmt.Sprintf(`gateway: g
grace_time: 0
web: {enabled: false}
buffer: {path: %q}
destinations:
  - {name: cloud, url: "mqtt://127.0.0.1:1"}
devices:
  - name: d
    driver: modbus
    url: tcp://127.0.0.1:1
    groups:
      - {name: g, interval: 1s, tags: [{name: a, address: "holding:0"}]}
`, store))
	log, err := os.Create(g.file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := []string{os.Args[0]}
	if nohup {
		args = []string{"/bin/sh", "-c", `trap "" HUP; exec "$0"`, os.Args[0]}
	}
	g.cmd = exec.Command(args[0], args[1:]...)
	g.cmd.Stdout, g.cmd.Stderr = log, log
	g.cmd.Env = append(os.Environ(), childArgs+"="+strings.Join([]string{"run", "--config", g.config}, "\n"))
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if terminal {
		g.giveTerminal()
	}
	taken := make(chan os.Signal, 1) // a signal that is ignored here, as under nohup, would be in the child as well
	signal.Notify(taken, syscall.SIGHUP)
	defer signal.Stop(taken)
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if slave, ok := g.cmd.Stdin.(*os.File); ok {
		_ = slave.Close() // the child has it
	}
	go func() { g.ended <- g.cmd.Wait() }()
	t.Cleanup(func() { _ = g.cmd.Process.Kill() })
	return g
}

// giveTerminal makes a new pseudo terminal the controlling terminal of the child.
func (g *child) giveTerminal() {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		g.t.Skipf("no pseudo terminals here: %v", err)
	}
	g.t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	g.terminal, g.cmd.Stdin, g.cmd.SysProcAttr.Setctty = master, slave, true
}

func (g *child) log() string { return readFile(g.t, g.file) }

// waitFor waits for words in the log.
func (g *child) waitFor(words string) {
	g.t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(g.log(), words); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("no %q in the log:\n%s", words, g.log())
		}
	}
}

// endsWell waits for the end, exit 0.
func (g *child) endsWell() {
	g.t.Helper()
	select {
	case err := <-g.ended:
		if err != nil {
			g.t.Errorf("it ends with %v:\n%s", err, g.log())
		}
	case <-time.After(patience):
		g.t.Fatalf("it does not end:\n%s", g.log())
	}
}
