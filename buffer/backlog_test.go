package buffer

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

const memoryDir = "MILLRACE_MEMORY_DIR"

func backlogOptions() Options {
	return Options{MaxSize: 16 << 30, CommitInterval: time.Second, Destinations: []string{"cloud"}}
}

// TestBacklog4GB builds a backlog of 4 GB and, in a process of its own, opens it, asks for its state,
// drains a part and reports its memory. It takes a minute and is run with MILLRACE_LONG.
func TestBacklog4GB(t *testing.T) {
	if os.Getenv("MILLRACE_LONG") == "" {
		t.Skip("set MILLRACE_LONG to build a backlog of 4 GB")
	}
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, backlogOptions())
	rng := rand.New(rand.NewPCG(1, 1))
	p := make([]byte, 4000)
	for i := 0; b.Stats().Bytes < 4<<30; i++ {
		for j := 0; j+8 <= len(p); j += 8 {
			binary.NativeEndian.PutUint64(p[j:], rng.Uint64())
		}
		s := mustStream(t, b, fmt.Sprintf("device-%d", i%100))
		if _, err := b.Append(s, p, 1000, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), memoryDir+"="+dir)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "done") {
		t.Fatal(err)
	}
}

// memoryChild opens a large backlog, drains a part of it and tells what that took.
func memoryChild(dir string) {
	fail := func(err error) {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	start := time.Now()
	b, err := Open(dir, backlogOptions())
	if err != nil {
		fail(err)
	}
	opened := time.Since(start)
	d := b.Destination("cloud")
	start = time.Now()
	st := b.Stats()
	_ = b.Ledger()
	status := time.Since(start)
	memory := func(when string) {
		raw, err := os.ReadFile("/proc/self/status")
		if err != nil {
			fail(err)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Printf("%s: heap in use %.1f MB;", when, float64(m.HeapInuse)/1e6)
		for line := range strings.Lines(string(raw)) {
			if f := strings.Fields(line); len(f) == 3 && (f[0] == "VmHWM:" || f[0] == "VmRSS:" || f[0] == "RssAnon:" || f[0] == "RssFile:") {
				fmt.Printf(" %s %s kB", f[0], f[1])
			}
		}
		fmt.Println()
	}
	fmt.Printf("%d records, %d segments, %.2f GB: opened in %v, state told in %v\n", st.Destinations[0].Backlog, st.Segments, float64(st.Bytes)/1e9, opened, status)
	memory("after opening")
	r := d.Reader(0, 0)
	var rec Record
	start = time.Now()
	n := 0
	for ; n < 250_000; n++ {
		if ok, err := take(r, &rec); !ok || err != nil {
			fail(fmt.Errorf("%v %w", ok, err))
		}
		d.Ack(rec.Seq)
		if n%10_000 == 0 {
			b.turn(false)
		}
	}
	took := time.Since(start)
	fmt.Printf("drained %d records of 4 KB in %v: %.1f million readings/s\n", n, took, float64(n)*1000/took.Seconds()/1e6)
	memory("after draining 1 GB")
	if err := b.Close(); err != nil {
		fail(err)
	}
	fmt.Println("done")
}
