package main

import (
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
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

// tune fits the runtime to an edge box of few megabytes, and to as many processors as the config gives it; 0 = as many as
// the machine has. GOGC and GOMAXPROCS in the environment win.
func tune(processors int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMAXPROCS") == "" && processors > 0 {
		runtime.GOMAXPROCS(processors)
	}
}

// hasTerminal reports whether the process belongs to a terminal: a hang-up then means that it is gone.
func hasTerminal() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
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
