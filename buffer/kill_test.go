package buffer

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The kill test runs this binary as a child that appends, reads, acknowledges and reports each step on a
// pipe, kills it with SIGKILL at a random moment, and looks at what it left.

const (
	childDir = "MILLRACE_KILL_DIR"
	childLie = "MILLRACE_KILL_LIE" // the child calls durable what is in memory
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		killChild(dir)
		return
	}
	if dir := os.Getenv(memoryDir); dir != "" {
		memoryChild(dir)
		return
	}
	if otherChild() {
		return
	}
	os.Exit(m.Run())
}

func killOptions() Options {
	o := testOptions()
	o.CommitInterval = 0
	o.SegmentSize = 256 << 10
	o.MaxAge = 1000 * time.Hour
	return o
}

// killPayload is what the record of a number must hold, whoever wrote it.
func killPayload(n uint64) []byte {
	rng := rand.New(rand.NewPCG(n, 7))
	p := make([]byte, 20+rng.IntN(300))
	for i := range p {
		p[i] = byte(rng.IntN(50))
	}
	return p
}

// killChild writes until it is killed. "a 7" says that record 7 was reported durable, "k 7" that it is
// about to be acknowledged.
func killChild(dir string) {
	say := func(format string, args ...any) {
		if _, err := fmt.Fprintf(os.Stdout, format+"\n", args...); err != nil {
			os.Exit(3)
		}
	}
	o := killOptions()
	if os.Getenv(childLie) != "" {
		o.CommitInterval = time.Second
	}
	b, err := Open(dir, o)
	if err != nil {
		say("error %v", err)
		return
	}
	say("open")
	go func() { _ = b.Run(context.Background()) }()
	d := b.Destination("cloud")
	go func() {
		r := d.Reader(0, 0)
		var rec Record
		for {
			ok, err := take(r, &rec)
			if err != nil {
				say("error %v", err)
				return
			}
			if !ok {
				<-d.Notify()
				continue
			}
			if rec.Gap == nil && !bytes.Equal(rec.Payload, killPayload(rec.Seq)) {
				say("error record %d is wrong", rec.Seq)
			}
			if rec.Seq%3 != 0 {
				say("k %d", rec.Seq)
				d.Ack(rec.Seq)
			}
		}
	}()
	for {
		s, err := b.Stream(fmt.Sprintf("device-%d", rand.IntN(4)), []byte("schema"))
		if err != nil {
			say("error %v", err)
			return
		}
		next := b.NextSeq() // this goroutine alone appends, and nothing leaves gap records
		seq, err := b.Append(s, killPayload(next), 1, int64(next))
		if err != nil || seq != next {
			say("error append: %d, want %d: %v", seq, next, err)
			return
		}
		say("a %d", seq)
	}
}

// killOnce runs the child for a while. It returns the numbers reported durable, and those reported
// acknowledged, among which are all that were.
func killOnce(t *testing.T, dir, lie string, rng *rand.Rand) (durable, acked map[uint64]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childLie+"="+lie)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	life := time.Duration(20+rng.IntN(180)) * time.Millisecond
	timer := time.AfterFunc(life, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	opened := rng.IntN(4) > 0 // its life begins when the store is open, however long that takes on a busy machine
	if opened {
		timer.Stop()
	}
	durable, acked = map[uint64]bool{}, map[uint64]bool{}
	in := bufio.NewReader(out)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			break // a line without an end was cut by the kill
		}
		var seq uint64
		switch {
		case line == "open\n" && opened:
			timer.Reset(life)
		case strings.HasPrefix(line, "error"):
			t.Error(line)
		case strings.HasPrefix(line, "a "):
			_, err = fmt.Sscanf(line, "a %d", &seq)
			durable[seq] = true
		case strings.HasPrefix(line, "k "):
			_, err = fmt.Sscanf(line, "k %d", &seq)
			acked[seq] = true
		}
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	_ = cmd.Wait() // it was killed
	return durable, acked
}

func TestKill(t *testing.T) {
	loops := 12
	if os.Getenv("MILLRACE_LONG") != "" {
		loops = 500
	}
	seed := seeds(t, 1, 1)[0]
	t.Logf("seed %d", seed)
	if total := killLoops(t, t.TempDir()+"/store", "", loops, seed); total < uint64(loops) {
		t.Errorf("the child hardly wrote anything: %d records in %d lives", total, loops)
	}
}

// TestKillControl shows that the test can see a loss: a child that calls durable what it has in memory.
func TestKillControl(t *testing.T) {
	dir := t.TempDir() + "/store"
	mustFail(t, "a child that lies", func(t *testing.T) { killLoops(t, dir, "1", 8, 1) })
}

// killLoops returns how many records the children reported durable.
func killLoops(t *testing.T, dir, lie string, loops int, seed uint64) (total uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 8))
	due, acked := map[uint64]bool{}, map[uint64]bool{}
	var high uint64
	for i := range loops {
		durable, done := killOnce(t, dir, lie, rng)
		for seq := range durable {
			if seq <= high {
				t.Fatalf("loop %d: number %d is used again", i, seq)
			}
			due[seq] = true
		}
		for seq := range done {
			acked[seq] = true
			delete(due, seq)
		}
		total += uint64(len(durable))
		for seq := range due {
			high = max(high, seq)
		}
		if i%4 != 3 {
			continue
		}
		b := mustOpen(t, dir, killOptions())
		if st := b.Stats(); st.Damages != 0 {
			t.Fatalf("loop %d: %+v", i, st.Damage)
		}
		checkLedger(t, b)
		high = max(high, b.NextSeq()-1)
		last := uint64(0)
		for _, r := range readAll(t, b.Destination("cloud"), true) {
			if r.Gap != nil || !bytes.Equal(r.Payload, killPayload(r.Seq)) || r.Seq <= last {
				t.Fatalf("loop %d: record %d after %d: %+v", i, r.Seq, last, r)
			}
			last = r.Seq
			delete(due, r.Seq)
		}
		if len(due) > 0 {
			t.Fatalf("loop %d: %d durable records are lost", i, len(due))
		}
		for _, a := range b.Ledger() {
			if n := a.Destinations[0]; n.Lost() != 0 || n.Buffered != 0 {
				t.Fatalf("loop %d: %s: %+v", i, a.Name, n)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return total
}
