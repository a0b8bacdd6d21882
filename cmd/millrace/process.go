package main

import (
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"syscall"
	"time"
)

// startProfile writes a CPU profile to path until stop is called; "" does nothing.
func startProfile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

// saveMemory fits the runtime to an edge box of few megabytes: almost nothing is allocated while the gateway runs, so a
// collection at each seventh more costs less than can be measured. GOGC in the environment wins.
func saveMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(15)
	}
}

// collectOften keeps garbage small while a config is loaded, which is when the gateway is largest, until done is called: with
// 50,000 tags some MiB more at the peak of a start. GOGC in the environment wins.
func collectOften() (done func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(10)
	return func() { debug.SetGCPercent(before) }
}

// useProcessors takes as many as the config gives; 0 = all of the machine. GOMAXPROCS in the environment wins.
func useProcessors(processors int) {
	if os.Getenv("GOMAXPROCS") == "" && processors > 0 {
		runtime.GOMAXPROCS(processors)
	}
}

// hangup is what SIGHUP means for a process.
type hangup int

const (
	hangupReloads hangup = iota // sent by a person or a service manager
	hangupStops                 // sent by the kernel or the shell: the terminal is gone
	hangupNothing               // nohup: whoever started the process wants it to outlive the terminal
)

// meaningOfHangup goes by the controlling terminal, not by what stdin and stderr are: only it sends SIGHUP, and a gateway that
// is started in a terminal with its output to a file has one all the same. A service manager starts processes without one.
func meaningOfHangup() hangup {
	if signal.Ignored(syscall.SIGHUP) {
		return hangupNothing
	}
	tty, err := os.Open("/dev/tty") // fails without a controlling terminal, and on Windows
	if err != nil {
		return hangupReloads
	}
	_ = tty.Close()
	return hangupStops
}

// notifySystemd tells a supervisor that asked for it (Type=notify) what state the process is in.
func notifySystemd(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return // the supervisor went away: nothing depends on it
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}

// keepAlive tells systemd twice in each WatchdogSec that the process lives, until stop is called. It says nothing of what the gateway
// does: something that hangs is the gateway's own watchdog's to tell. But a process whose threads all stand, as when a page of a
// mapped file never comes, can do nothing any more, its own stop included.
func keepAlive() (stop func()) {
	every := watchdogInterval() / 2
	if every <= 0 {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			notifySystemd("WATCHDOG=1")
			select {
			case <-done:
				return
			case <-ticker.C:
			}
		}
	}()
	return func() { close(done) }
}

// watchdogInterval is what sd_watchdog_enabled(3) returns: how long systemd waits for a word, 0 = it does not.
func watchdogInterval() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || us <= 0 || us > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(us) * time.Microsecond
}
