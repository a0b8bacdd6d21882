package web

import (
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
)

// ReadProcess returns what this process costs its machine now. It does not stop the world.
func ReadProcess() Process {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	p := Process{Goroutines: runtime.NumGoroutine()}
	if heap[0].Value.Kind() == metrics.KindUint64 {
		p.HeapBytes = heap[0].Value.Uint64()
	}
	p.RSSBytes = residentBytes()
	p.CPUSeconds = cpuSeconds()
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.OpenFiles = len(open) - 1 // less the one that lists them
	}
	return p
}

func residentBytes() uint64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize())
}

// clockTicks is the unit of utime and stime in /proc: 1/100 s on every Linux port that Go has.
const clockTicks = 100

func cpuSeconds() float64 {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	// The second field, the command's name, may itself hold spaces and parentheses.
	_, rest, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / clockTicks
}
