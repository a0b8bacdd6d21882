package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// usage is what the operating system has accounted to one process.
type usage struct {
	CPU      float64 // seconds, user and system
	RSS      int64   // bytes
	PeakRSS  int64
	Written  int64 // bytes sent to the block layer
	Switches int64 // voluntary context switches of all threads: wake-ups
}

const clockTicks = 100 // USER_HZ on every Linux port

func usageOf(pid int) (u usage) {
	dir := fmt.Sprintf("/proc/%d", pid)
	if b, err := os.ReadFile(dir + "/stat"); err == nil {
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		user, _ := strconv.ParseFloat(f[11], 64)
		sys, _ := strconv.ParseFloat(f[12], 64)
		u.CPU = (user + sys) / clockTicks
	}
	status := fields(dir + "/status")
	u.RSS, u.PeakRSS = status["VmRSS"]<<10, status["VmHWM"]<<10
	u.Written = fields(dir + "/io")["write_bytes"]
	tasks, _ := filepath.Glob(dir + "/task/*/status")
	for _, t := range tasks {
		u.Switches += fields(t)["voluntary_ctxt_switches"]
	}
	if exact := scheduled(dir); exact > 0 {
		u.CPU = exact
	}
	return u
}

// scheduled is the time on a processor that the scheduler has measured, in seconds: exact, where utime and stime
// are samples of the clock tick, which a program that sleeps by the clock meets too often. 0 when the kernel does not tell.
func scheduled(dir string) (seconds float64) {
	tasks, _ := filepath.Glob(dir + "/task/*/schedstat")
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		ns, _, _ := strings.Cut(string(b), " ")
		n, _ := strconv.ParseFloat(ns, 64)
		seconds += n / 1e9
	}
	return seconds
}

// fields reads the numbers of a "name: value" file.
func fields(path string) map[string]int64 {
	b, _ := os.ReadFile(path)
	m := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		if name, rest, ok := strings.Cut(line, ":"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				m[name], _ = strconv.ParseInt(f[0], 10, 64)
			}
		}
	}
	return m
}
