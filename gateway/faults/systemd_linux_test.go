package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSystemd: the unit file as it is shipped, under a systemd of its own: it starts, tells that it is ready, reloads, refuses a config
// with a mistake, is killed and started again when it hangs, and stops cleanly. Only the watchdog's time is shortened.
func TestSystemd(t *testing.T) {
	if os.Getenv("SYSTEMD") != "yes" {
		t.Skip("boots a systemd in namespaces: set SYSTEMD=yes, as root")
	}
	dir := t.TempDir()
	unit := systemdFiles(t, dir)
	s := bootSystemd(t, dir)

	if out, err := s.command("systemctl", "start", "millrace").CombinedOutput(); err != nil {
		t.Fatalf("%s\n%s", out, s.do(t, true, "journalctl", "-u", "millrace", "-o", "cat"))
	}
	first := s.show(t, "MainPID")
	s.do(t, true, "systemctl", "reload", "millrace")
	s.do(t, true, "sed", "-i", "s/interval: 1s/interval: 1x/", "/etc/millrace/millrace.yaml")
	s.do(t, false, "systemctl", "reload", "millrace")
	if log := s.do(t, true, "journalctl", "-u", "millrace", "-o", "cat"); !strings.Contains(log, `interval "1x" has the unknown unit`) {
		t.Errorf("the journal does not say what is wrong:\n%s", log)
	}
	if pid := s.show(t, "MainPID"); pid != first {
		t.Errorf("process %s, and was %s before the reloads", pid, first)
	}
	s.do(t, true, "sed", "-i", "s/interval: 1x/interval: 1s/", "/etc/millrace/millrace.yaml")

	s.do(t, true, "kill", "-STOP", first)
	stopped := time.Now()
	waitFor(t, time.Minute, "another process in the place of the one that hangs", func() bool {
		pid := s.show(t, "MainPID")
		return pid != first && pid != "0" && s.show(t, "ActiveState") == "active"
	})
	t.Logf("FIGURES started again %.1f s after it hung (watchdog 6 s)", time.Since(stopped).Seconds())

	s.do(t, true, "systemctl", "stop", "millrace")
	if result, status := s.show(t, "Result"), s.show(t, "ExecMainStatus"); result != "success" || status != "0" {
		t.Errorf("stopped with result %s, status %s", result, status)
	}
	if !strings.Contains(unit, "WatchdogSec=6s") {
		t.Error("the unit file has no WatchdogSec=60s any more")
	}
}

// systemdFiles makes what the machine that is booted has of its own, and returns the unit file.
func systemdFiles(t *testing.T, dir string) (unit string) {
	must(t, exec.Command("cp", "-a", "/etc", dir+"/etc").Run())
	old, err := filepath.Glob(dir + "/etc/systemd/system/*.wants")
	must(t, err)
	for _, w := range old {
		must(t, os.RemoveAll(w))
	}
	must(t, os.MkdirAll(dir+"/bin", 0o755))
	_, err = Build(dir+"/bin", false)
	must(t, err)
	text, err := os.ReadFile("../../configs/millrace.service")
	must(t, err)
	unit = strings.Replace(string(text), "WatchdogSec=60s", "WatchdogSec=6s", 1)
	must(t, os.WriteFile(dir+"/etc/systemd/system/millrace.service", []byte(unit), 0o644))
	must(t, os.MkdirAll(dir+"/etc/millrace", 0o755))
	must(t, os.WriteFile(dir+"/etc/millrace/mqtt-password", []byte("secret"), 0o600))
	must(t, os.WriteFile(dir+"/etc/millrace/millrace.yaml", []byte(`gateway: edge-1
buffer: {path: /var/lib/millrace}
grace_time: 1s
destinations:
  - {name: cloud, url: "mqtt://127.0.0.1:1883"}
devices:
  - name: press
    driver: modbus
    url: tcp://127.0.0.1:1502
    groups: [{name: fast, interval: 1s, tags: [{name: a, address: "40001"}]}]
`), 0o644))
	return unit
}

// systemd is one that runs in namespaces, by the number of its process.
type systemd int

func bootSystemd(t *testing.T, dir string) systemd {
	boot := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net", "--cgroup", "sh", "testdata/systemd/boot.sh", dir)
	boot.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, boot.Start())
	t.Cleanup(func() {
		_ = boot.Process.Kill() // and with it all that it has started
		_ = boot.Wait()
	})
	s := systemd(0)
	waitFor(t, time.Minute, "systemd to run", func() bool {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", boot.Process.Pid, boot.Process.Pid))
		_, _ = fmt.Sscan(string(children), &s)
		out, _ := s.command("systemctl", "is-system-running").Output()
		return strings.TrimSpace(string(out)) == "running" || strings.TrimSpace(string(out)) == "degraded"
	})
	return s
}

func (s systemd) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", fmt.Sprint(int(s)), "--mount", "--pid", "--net", "--cgroup"}, args...)...)
}

// do runs a command in there, which has to succeed or fail, and returns what it says.
func (s systemd) do(t *testing.T, succeeds bool, args ...string) string {
	t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if (err == nil) != succeeds {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s systemd) show(t *testing.T, property string) string {
	t.Helper()
	return strings.TrimSpace(s.do(t, true, "systemctl", "show", "millrace", "--value", "-p", property))
}
