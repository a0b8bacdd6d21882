package buffer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// spoil overwrites a file under the process that has it mapped.
func spoil(t *testing.T, path, how string, rng *rand.Rand) {
	t.Helper()
	if how == "truncated" {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, pageSize)
	for range 8 {
		for i := range page {
			page[i] = byte(rng.Uint32())
		}
		if _, err := f.WriteAt(page, rng.Int64N(max(info.Size()/pageSize, 1))*pageSize); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSpoiledUnderLoad damages files that are being written: commits go on, what is in memory is not lost, whatever is
// lost is counted, and Close ends.
func TestSpoiledUnderLoad(t *testing.T) {
	rounds := 3
	if os.Getenv("MILLRACE_LONG") != "" {
		rounds = 50
	}
	for _, file := range []string{"seg-*.db", stateName} {
		for _, how := range []string{"truncated", "garbage"} {
			for round := range rounds {
				t.Run(fmt.Sprintf("%s %s %d", file, how, round), func(t *testing.T) {
					spoilUnderLoad(t, file, how, rand.New(rand.NewPCG(uint64(round), 9)))
				})
			}
		}
	}
}

func spoilUnderLoad(t *testing.T, file, how string, rng *rand.Rand) {
	o := testOptions()
	o.CommitInterval = 20 * time.Millisecond
	b := mustOpen(t, t.TempDir()+"/store", o)
	s, d := mustStream(t, b, "press"), b.Destination("cloud")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	feed(t, b, s, 500+rng.IntN(1000), rng)
	began := time.Now()
	took(t, "commit", func() { commitNow(t, b) })
	limit := 2*time.Second + 20*time.Since(began) // the machine may be slow
	names, err := filepath.Glob(filepath.Join(b.dir, file))
	if err != nil || len(names) == 0 {
		t.Fatalf("%q: %v", names, err)
	}
	spoil(t, names[len(names)-1], how, rng)
	began = time.Now()
	before := b.Stats().Commits
	feed(t, b, s, 200, rng)
	for b.Stats().Commits == before {
		time.Sleep(time.Millisecond)
	}
	if d := time.Since(began); d > limit {
		t.Errorf("the next commit came after %v, more than %v", d, limit)
	}
	took(t, "commit after the damage", func() {
		b.lockCommit()
		defer b.unlockCommit()
		if err := b.commitOr(true); err != nil {
			t.Errorf("commit: %v", err)
		}
		s.Count(1, 1)
		if err := b.settleIdle(true); err != nil { // writes state.db
			t.Errorf("checkpoint: %v", err)
		}
	})
	if h := b.Stats().Health; h != "ok" {
		t.Errorf("health: %s", h)
	}
	if how == "truncated" && b.Stats().Damages == 0 {
		t.Error("the damage is not told")
	}
	checkLedger(t, b)
	n := 0
	for _, r := range readAll(t, d, false) {
		if r.Gap == nil {
			n++
		}
	}
	if want := int(b.NextSeq() - 1); n != want { // all is still in the tail
		t.Errorf("%d of %d records that memory holds", n, want)
	}
	cancel()
	took(t, "stop", func() { <-ended; _ = b.Close() })
	b = mustOpen(t, b.dir, o)
	checkLedger(t, b)
	if got := len(readAll(t, b.Destination("cloud"), true)); got < n && (how == "truncated" || b.Stats().Damages == 0) {
		// Garbage in pages that bbolt did not touch again is found at the restart, and must be told.
		t.Errorf("%d records after a restart, want %d", got, n)
	}
	checkLedger(t, b)
}

// feed has four producers append at once.
func feed(t *testing.T, b *Buffer, s *Stream, n int, rng *rand.Rand) {
	var all sync.WaitGroup
	for i := range 4 {
		seed := rng.Uint64()
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for range n / 4 {
				if _, err := b.Append(s, make([]byte, 300+rng.IntN(300)), 1, 1); err != nil {
					t.Error(err)
				}
				if rng.IntN(20) == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	all.Wait()
}

// took fails when f does not end in a time that no healthy machine needs.
func took(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		inKernel := threads() // before the runtime stops them all
		if tell := whenHung.Load(); tell != nil {
			(*tell)()
		}
		stacks := make([]byte, 1<<20)
		t.Fatalf("%s hangs; all goroutines:\n%s\nthreads:\n%s", what, stacks[:runtime.Stack(stacks, true)], inKernel)
	}
}

// whenHung has the process that serves the disk, where there is one, tell what it does.
var whenHung atomic.Pointer[func()]

// threads returns where in the kernel the threads of this process and of its children are, and how many requests file systems of processes have unanswered.
func threads() string {
	var b strings.Builder
	children, _ := filepath.Glob("/proc/self/task/*/children") // the patterns are sound
	folders := []string{"/proc/self"}
	for _, file := range children {
		list, _ := os.ReadFile(file)
		for pid := range strings.FieldsSeq(string(list)) {
			folders = append(folders, "/proc/"+pid)
		}
	}
	for _, folder := range folders {
		tasks, _ := filepath.Glob(folder + "/task/*")
		for _, task := range tasks {
			call, _ := os.ReadFile(task + "/syscall")
			stack, _ := os.ReadFile(task + "/stack")
			fmt.Fprintf(&b, "%s %s%s", task, call, stack)
		}
	}
	waiting, _ := filepath.Glob("/sys/fs/fuse/connections/*/waiting")
	for _, file := range waiting {
		n, _ := os.ReadFile(file)
		fmt.Fprintf(&b, "%s %s", file, n)
	}
	return b.String()
}

// tellsOfSpare checks that a damage of which nothing is lost is told as that, without numbers, and of the file as it is named now, as a verification does.
func tellsOfSpare(t *testing.T, b *Buffer, again bool) {
	t.Helper()
	damage, want := b.Stats().Damage, rewriting
	if again {
		want = rewritten
	}
	if len(damage) != 1 || damage[0].FirstSeq != 0 || damage[0].LastSeq != 0 || !strings.HasSuffix(damage[0].Reason, want) {
		t.Fatalf("damage: %+v", damage)
	}
	if _, err := os.Stat(filepath.Join(b.dir, damage[0].File)); err != nil {
		t.Errorf("named, and not there: %v", err)
	}
	if v, err := b.Verify(t.Context(), nil); err != nil || len(v.Problems) != 1 || v.Problems[0].File != damage[0].File || v.Problems[0].Reason != damage[0].Reason {
		t.Errorf("verify: %v %+v, status %+v", err, v, damage)
	}
}

// TestSpareIsRead: a damaged segment that memory holds whole is not given up before memory has been written again.
func TestSpareIsRead(t *testing.T) {
	for _, how := range []string{"not written again", "creation cut short", "written again"} {
		t.Run(how, func(t *testing.T) {
			again := how == "written again"
			refuse := false
			fs := osFiles()
			fs.bolt = func(path string, o *bolt.Options) (*bolt.DB, error) {
				if refuse {
					return nil, syscall.EIO
				}
				return bolt.Open(path, 0o640, o)
			}
			dir := t.TempDir() + "/store"
			b, err := open(dir, testOptions(), fs)
			if err != nil {
				t.Fatal(err)
			}
			s := mustStream(t, b, "press")
			s.Count(200, 0)
			appendN(t, b, s, 100)
			commitNow(t, b)
			f, err := os.OpenFile(b.active.path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			path := b.active.path
			if _, err := f.WriteAt(make([]byte, 2*pageSize), 0); err != nil || f.Close() != nil { // its meta pages
				t.Fatal(err)
			}
			refuse = !again
			b.lockCommit()
			b.abandon(fmt.Errorf("a page is gone: %w", errDamaged))
			if err := b.commit(); (err == nil) != again {
				t.Errorf("commit: %v", err)
			}
			b.unlockCommit()
			tellsOfSpare(t, b, again)
			crash(b)
			if how == "creation cut short" {
				if err := os.WriteFile(path, make([]byte, emptyFile), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			b = mustOpen(t, dir, testOptions())
			if got := len(readAll(t, b.Destination("cloud"), true)); got != 100 {
				t.Errorf("%d of 100 records", got)
			}
			if names, _ := filepath.Glob(dir + "/*" + spareSuffix); len(names) > 0 || (b.Stats().Damages == 0) != again {
				t.Errorf("%q %+v", names, b.Stats().Damage)
			}
			checkLedger(t, b)
		})
	}
}

// TestStateIsLookedAt: a state.db that is spoiled while nobody writes it is seen and written anew, so that a kill loses nothing of it.
func TestStateIsLookedAt(t *testing.T) {
	for _, how := range []string{"truncated", "garbage", "removed"} {
		t.Run(how, func(t *testing.T) {
			b := mustOpen(t, t.TempDir()+"/store", testOptions())
			s, d := mustStream(t, b, "press"), b.Destination("cloud")
			appendN(t, b, s, 10)
			commitNow(t, b)
			recs := readAll(t, d, false)
			d.Take(&recs[0])
			if err := d.Reject(recs[0].Seq, "no"); err != nil {
				t.Fatal(err)
			}
			look := func() {
				b.looked, b.stateLooked = time.Time{}, time.Time{}
				turnNow(b)
			}
			look()
			if n := b.Stats().Damages; n != 0 {
				t.Fatalf("%d damages of a sound store: %+v", n, b.Stats().Damage)
			}
			path, next := filepath.Join(b.dir, stateName), b.NextSeq()
			if how == "removed" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else {
				spoil(t, path, how, rand.New(rand.NewPCG(1, 77)))
			}
			look()
			if st := b.Stats(); st.Damages != 1 || st.Damage[0].File != stateName || st.Health != "ok" {
				t.Errorf("%+v", st)
			}
			crash(b)
			b = mustOpen(t, b.dir, testOptions())
			if q, err := b.Quarantine(); err != nil || len(q) != 1 || b.Stats().Damages > 0 || b.NextSeq() > next+reserveStep {
				t.Errorf("after a kill: %d in quarantine, %v, damages %+v, next number %d after %d", len(q), err, b.Stats().Damage, b.NextSeq(), next)
			}
		})
	}
}
