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

// tune fits the runtime to an edge box: few megabytes, and a load that is thousands of short wake-ups a second.
//
// One processor: with two or more, each wake-up of a goroutine also wakes a second thread that looks for work and
// finds none, which doubles the CPU of a gateway of a thousand small devices (measured: README of cmd/millrace-bench).
// One carries several million readings a second. GOGC and GOMAXPROCS in the environment win.
func tune() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
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
