package faults

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxLog bounds what is kept of a process's output; the oldest goes first.
const maxLog = 4 << 20

// process is a child with its output. Its methods may be called from one goroutine, output from any.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the child has been waited for
	output *tail
}

// start runs the program with both outputs kept in out. The child dies with the test process, also when
// that is killed or times out.
func start(out *tail, env []string, credential *syscall.Credential, name string, args ...string) (*process, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if env != nil {
		cmd.Env = append(os.Environ(), env...)
	}
	// As under a service manager: without the terminal that the tests may have, and SIGHUP is not ignored as under nohup.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGKILL, Setsid: true}
	taken := make(chan os.Signal, 1)
	signal.Notify(taken, syscall.SIGHUP)
	defer signal.Stop(taken)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %q: %w", name, err)
	}
	p := &process{cmd: cmd, exited: make(chan struct{}), output: out}
	go func() {
		cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// wait returns the exit code, -1 for a death by signal, and false when the child still runs after d.
func (p *process) wait(d time.Duration) (code int, ok bool) {
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode(), true
	case <-time.After(d):
		return 0, false
	}
}

// kill ends the child with SIGKILL and waits for its end.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.exited
}

// tail keeps the end of what is written to it.
type tail struct {
	mu    sync.Mutex
	buf   []byte
	lines int // of all, also those that are not kept, but for those that tell of a slow machine
}

// Write never fails.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines += bytes.Count(b, []byte("\n")) - bytes.Count(b, []byte(": late since "))
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - maxLog; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// Lines returns how many lines were written so far, without those of devices that are polled late: a busy machine makes them.
func (t *tail) Lines() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lines
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.Clone(t.buf))
}

// freeAddr returns a free port of host, "host:port".
func freeAddr(host string) (string, error) {
	for try := 0; ; try++ {
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, 10000+rand.IntN(20000))) // which the kernel gives to no connection of its own
		if err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
		if try == 100 {
			return "", err
		}
	}
}

// awaitListener waits until something accepts connections at addr, or the process ends.
func awaitListener(p *process, addr string, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return nil
		}
		if !p.running() {
			return fmt.Errorf("wait for %q to listen on %s: it ended: %s", p.cmd.Path, addr, p.output)
		}
	}
	return fmt.Errorf("wait for %q to listen on %s: nothing after %s: %s", p.cmd.Path, addr, d, p.output)
}

// statusBytes reads one line of /proc/PID/status that is given in kB.
func statusBytes(pid int, key string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			var kb int64
			fmt.Sscan(rest, &kb)
			return kb << 10
		}
	}
	return 0
}
