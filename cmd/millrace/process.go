package main

import (
	"net"
	"os"
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

// tuneMemory trades a little CPU for a smaller process: an edge box has few megabytes to spare and the
// gateway's live heap is small. GOGC and GOMEMLIMIT in the environment win.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
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
