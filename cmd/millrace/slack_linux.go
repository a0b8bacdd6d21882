package main

import (
	"os"
	"runtime"
	"syscall"
)

// timerSlack is how late, in ns, the kernel may wake a thread that sleeps, so that it wakes once for several reasons.
// The usual 50 µs suits a game; a gateway whose shortest intervals are many milliseconds sleeps better. Most of the
// gain is Go's own monitor thread, which asks for 20 µs again and again while there is work: two fifths of the CPU at
// 100,000 readings a second (cmd/millrace-bench/README.md).
const timerSlack = 5_000_000

const (
	prSetTimerslack = 29 // prctl(2)
	prGetTimerslack = 30
	usualSlack      = 50_000
)

// relaxTimers gives every thread of the process that slack. It is a property of a thread, which its children and the
// program it executes inherit, and the runtime's threads are there already: so the program executes itself once.
// A slack that somebody else has chosen (systemd's TimerSlackNSec) is kept. Nothing depends on its working.
func relaxTimers() {
	if now, _, _ := syscall.RawSyscall(syscall.SYS_PRCTL, prGetTimerslack, 0, 0); now != usualSlack {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, no := syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerslack, timerSlack, 0); no == 0 {
		_ = syscall.Exec(self, os.Args, os.Environ())
	}
}
