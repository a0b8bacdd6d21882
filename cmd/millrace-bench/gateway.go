package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// target is the gateway under test as a child process.
type target struct {
	o       options
	args    []string
	dir     string
	devices []string
	broker  string
	timeout int // seconds, of each device
	log     *os.File
	cmd     *exec.Cmd
	exited  chan struct{}
	started time.Time
}

// newTarget builds or finds the gateway and writes its config.
func newTarget(dir string, o options, devices []string, broker string) (*target, error) {
	log, err := os.Create(filepath.Join(dir, "gateway.log"))
	if err != nil {
		return nil, err
	}
	t := &target{o: o, log: log, dir: dir, devices: devices, broker: broker, timeout: 2}
	switch o.Target {
	case "floor":
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		t.args = []string{self, "floor", "--broker", broker, "--tags", fmt.Sprint(o.Tags), "--type", o.Kind,
			"--interval", o.Interval.String(), "--device", strings.Join(devices, ",")}
	case "millrace":
		binary := filepath.Join(dir, "millrace")
		if err := buildGateway(binary); err != nil {
			return nil, fmt.Errorf("build the gateway: %w; run the bench with `go -C cmd/millrace-bench run .`", err)
		}
		if err := t.configure(); err != nil {
			return nil, err
		}
		t.args = []string{binary, "run", "--config", t.config()}
		if o.Profile != "" {
			t.args = append(t.args, "--cpuprofile", o.Profile)
		}
	default:
		names, err := telegrafConfigs(dir, o, devices, broker)
		if err != nil {
			return nil, err
		}
		r := strings.NewReplacer(append(names, "{broker}", broker, "{devices}", strings.Join(devices, ","), "{dir}", dir)...)
		for _, w := range strings.Fields(o.Target) {
			t.args = append(t.args, r.Replace(w))
		}
	}
	return t, nil
}

// buildGateway builds the gateway in its own module, so that it is made of the versions that are in its go.mod and not of
// those that the bench needs. It finds the folder of that module through the bench's go.mod.
func buildGateway(binary string) error {
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "millrace")
	list.Stderr = os.Stderr
	root, err := list.Output()
	if err != nil {
		return fmt.Errorf("find module millrace: %w", err)
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./cmd/millrace")
	build.Dir = strings.TrimSpace(string(root))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (t *target) config() string { return filepath.Join(t.dir, "millrace.yaml") }

func (t *target) configure() error {
	return os.WriteFile(t.config(), configFor(t.dir, t.o, t.devices, t.broker, t.timeout), 0o644)
}

// reload writes the config and returns when it is in force.
func (t *target) reload(ctx context.Context) error {
	if err := t.configure(); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, t.args[0], "reload", "--config", t.config()).CombinedOutput(); err != nil {
		return fmt.Errorf("reload: %w: %s", err, out)
	}
	return nil
}

// pki is where the gateway has its certificates, and trustedFile the one that it trusts.
func pki(dir string) string         { return filepath.Join(dir, "pki") }
func trustedFile(dir string) string { return filepath.Join(pki(dir), "trusted", "server.der") }

// configFor writes the config of a millrace that polls the simulated devices.
func configFor(dir string, o options, devices []string, broker string, timeout int) []byte {
	b := fmt.Appendf(nil, `gateway: bench
grace_time: 5s
processors: %d
web: {enabled: false}
pki: {path: %q}
buffer: {path: %q, max_size: %s, commit_interval: %s}
destinations:
  - {name: cloud, url: "mqtt://%s", client_id: bench, topic: "bench/{device}/{group}", order: %s}
devices:
`, o.Processors, pki(dir), filepath.Join(dir, "data"), o.MaxSize, o.Commit, broker, o.Order)
	words := 1
	if o.Kind == "float32" {
		words = 2
	}
	scheme, more := "tcp", ""
	if o.Driver == "opcua" {
		scheme, more = "opc.tcp", "    mode: "+o.Mode+"\n"
		if o.Security == "none" {
			more += "    security_policy: none\n"
		} else {
			more += "    security_mode: " + o.Security + "\n"
		}
	}
	if o.Line {
		scheme = "rtu"
	}
	for i, address := range devices {
		if o.Line {
			more, address = fmt.Sprintf("    unit: %d\n", i+1), fmt.Sprintf("%s?baud=%d", address, lineBaud)
		}
		b = fmt.Appendf(b, "  - name: d%d\n    driver: %s\n    url: %s://%s\n    timeout: %ds\n%s    groups:\n      - name: g\n        interval: %s\n        tags:\n",
			i, o.Driver, scheme, address, timeout, more, o.Interval)
		for j := range o.Tags {
			where := fmt.Sprintf("holding:%d", j*words)
			if o.Driver == "opcua" {
				where = fmt.Sprintf("ns=2;s=t%d", j)
			}
			b = fmt.Appendf(b, "          - {name: t%d, address: %q, type: %s}\n", j, where, o.Kind)
		}
	}
	return b
}

func (t *target) start() error {
	t.cmd = exec.Command(t.args[0], t.args[1:]...)
	t.cmd.Stdout, t.cmd.Stderr = t.log, t.log
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	t.exited, t.started = make(chan struct{}), time.Now()
	if err := t.startWithSlack(); err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	go func() {
		_ = t.cmd.Wait()
		close(t.exited)
	}()
	return nil
}

// startWithSlack starts the gateway from a thread whose timer slack it inherits, as it does from systemd.
func (t *target) startWithSlack() error {
	if t.o.Target != "millrace" || t.o.Slack <= 0 {
		return t.cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(t.o.Slack), 0, 0, 0); err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	err := t.cmd.Start()
	return errors.Join(err, unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)) // 0 = as this thread had it first
}

func (t *target) usage() usage { return usageOf(t.cmd.Process.Pid) }

func (t *target) kill() {
	_ = t.cmd.Process.Kill()
	<-t.exited
}

// stop asks for a clean stop and waits for it.
func (t *target) stop() error {
	_ = t.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-t.exited:
		return nil
	case <-time.After(30 * time.Second):
		t.kill()
		return errors.New("the gateway did not stop within 30 s of SIGTERM")
	}
}

// alive says what the gateway's log ends with when it has exited on its own.
func (t *target) alive() error {
	select {
	case <-t.exited:
		b, _ := os.ReadFile(t.log.Name())
		return fmt.Errorf("the gateway exited: %s", b[max(0, len(b)-2000):])
	default:
		return nil
	}
}
