package buffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// logged are the lines of a log by the minute of the clock, with the sum of what their times say.
type logged struct {
	lines map[string]int
	times int
	most  int // in a minute
}

var timeOfLine, timesOfLine = regexp.MustCompile(`(?m)^time=(\S{16})`), regexp.MustCompile(` times=(\d+)`)

// linesWith looks at the lines that have a word.
func linesWith(log, word string) (l logged) {
	l.lines = map[string]int{}
	for line := range strings.Lines(log) {
		if !strings.Contains(line, word) {
			continue
		}
		minute := timeOfLine.FindStringSubmatch(line)[1]
		l.lines[minute]++
		l.most = max(l.most, l.lines[minute])
		if m := timesOfLine.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			l.times += n
		}
	}
	return l
}

// TestFullDiskIsToldOnceAMinute: while a full disk takes nothing each try makes a file and has to give it up; the log says so at once, and after a minute how
// often.
func TestFullDiskIsToldOnceAMinute(t *testing.T) {
	mnt := smallDisk(t, "2m")
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		o := testOptions()
		o.Log = slog.New(slog.NewTextHandler(&said, nil))
		b := mustOpen(t, mnt+"/store", o)
		s := mustStream(t, b, "press")
		records := map[uint64]string{}
		for outage := range 2 {
			fillDisk(t, mnt+"/ballast")
			if err := os.Truncate(mnt+"/ballast", fileSize(mnt+"/ballast", 0)-40<<10); err != nil { // enough for a file, and not for what is to stand in it
				t.Fatal(err)
			}
			feedNoted(t, b, s, records, 200)
			for range 20 {
				b.lockCommit()
				_ = b.commit()
				b.unlockCommit()
			}
			if n := strings.Count(said.String(), "segment given up"); n != 2*outage+1 {
				t.Errorf("said %d times in %d outages:\n%s", n, outage+1, said.String())
			}
			if err := os.Remove(mnt + "/ballast"); err != nil {
				t.Fatal(err)
			}
			commitNow(t, b)
			b.lockCommit()
			b.seal()
			time.Sleep(lossEvery)
			b.tellRepeats(time.Now())
			if l := linesWith(said.String(), "segment given up"); l.times != 20*(outage+1) {
				t.Errorf("said of %d in %d outages:\n%s", l.times, outage+1, said.String())
			}
			if n := strings.Count(said.String(), "commit works again"); n != outage+1 {
				t.Errorf("said %d times that commits work, after %d outages:\n%s", n, outage+1, said.String())
			}
			b.unlockCommit()
			time.Sleep(lossEvery)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestNearlyFullDiskIsToldOnceAMinute: others leave the disk less than the store wants for what a destination that is away does not take, so each growth fails
// and has room made for it.
func TestNearlyFullDiskIsToldOnceAMinute(t *testing.T) {
	for _, policy := range []Policy{DropOldest, DropNewest} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			mnt := smallDisk(t, "10m")
			junk := map[Policy]int{DropOldest: 9 << 20, DropNewest: 4 << 20}[policy]
			if err := os.WriteFile(mnt+"/junk", make([]byte, junk), 0o600); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				var said bytes.Buffer
				o := testOptions()
				o.MaxSize, o.CommitInterval, o.Destinations, o.WhenFull = 4<<20, time.Second, []string{"here", "away"}, policy
				o.Log = slog.New(slog.NewTextHandler(&said, nil))
				b := mustOpen(t, mnt+"/store", o)
				end := runs(t, b)
				large, small, rng := mustStream(t, b, "large"), mustStream(t, b, "small"), rand.New(rand.NewPCG(1, 2))
				for i := range 1200 {
					if policy == DropNewest && i%10 == 0 { // it is full in turn: else it takes nothing for good
						fillDisk(t, mnt+"/ballast")
					} else if i%10 == 5 {
						_ = os.Remove(mnt + "/ballast")
					}
					for s, size := range map[*Stream]int{large: 24_000, small: 1000} {
						if _, err := b.Append(s, randomBytes(rng, size), 1, int64(i)); err != nil && !errors.Is(err, ErrFull) {
							t.Fatal(err)
						}
					}
					readAll(t, b.Destination("here"), true)
					time.Sleep(500 * time.Millisecond)
				}
				end()
				if l := linesWith(said.String(), "level="); l.most > 6 || len(l.lines) < 2 || b.Stats().CommitErrors < 50 {
					t.Errorf("%d lines in a minute, %d commits failed:\n%s", l.most, b.Stats().CommitErrors, said.String())
				}
			})
		})
	}
}

// runs runs the store; the function that it returns ends it and closes the store.
func runs(t *testing.T, b *Buffer) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	return func() {
		cancel()
		<-ended
		_ = b.Close()
	}
}

// TestGivenUpInWords: of a segment that is given up the log says that nothing is written to it again only where that is so.
func TestGivenUpInWords(t *testing.T) {
	var said bytes.Buffer
	for at := range 12 {
		f := &faulty{kind: "half"}
		o := testOptions()
		o.Log = slog.New(slog.NewTextHandler(&said, nil))
		b, err := open(t.TempDir()+"/store", o, f.files())
		if err != nil {
			t.Fatal(err)
		}
		s := mustStream(t, b, "press")
		for range 2 { // into a new segment, and into one that has records
			f.failAt, f.forever, f.count = at+1, true, 0
			for range 3 {
				appendN(t, b, s, 10)
				b.lockCommit()
				_ = b.commit()
				b.unlockCommit()
			}
			f.failAt = 0
			appendN(t, b, s, 10)
			commitNow(t, b)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	log := said.String()
	if again := begunAgain(log); again != "" || !strings.Contains(log, "of that name") || !strings.Contains(log, "nothing is written to it again") {
		t.Errorf("%q was not to be written again, and was:\n%s", again, log)
	}
}

// begunAgain returns a file that is given up again after it was said that nothing is written to it any more.
func begunAgain(log string) string {
	over := map[string]bool{}
	for _, m := range regexp.MustCompile(`msg="segment given up: ([^"]*)" file=(\S+)`).FindAllStringSubmatch(log, -1) {
		if over[m[2]] {
			return m[2]
		}
		over[m[2]] = strings.HasPrefix(m[1], "nothing is written")
	}
	return ""
}

// TestTroubleThatComesAndGoes: commits that fail and work in turn are one trouble, told at once and then once a minute; its end when they have worked for a
// while. A segment given up for another reason than a full disk has its line each time.
func TestTroubleThatComesAndGoes(t *testing.T) {
	for _, as := range []syscall.Errno{syscall.ENOSPC, syscall.EIO} {
		t.Run(as.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said bytes.Buffer
				f := &faulty{kind: "half", as: as, forever: true}
				o := testOptions()
				o.CommitInterval, o.Log = time.Second, slog.New(slog.NewTextHandler(&said, nil))
				b, err := open(t.TempDir()+"/store", o, f.files())
				if err != nil {
					t.Fatal(err)
				}
				end, s := runs(t, b), mustStream(t, b, "press")
				count := func(word string) int {
					b.lockCommit()
					defer b.unlockCommit()
					return strings.Count(said.String(), word)
				}
				for i := range 100 {
					f.mu.Lock()
					f.failAt, f.count = 1-i%2, 0
					f.mu.Unlock()
					appendN(t, b, s, 10)
					time.Sleep(3 * time.Second)
					if n := count("commit failed"); i == 0 && n != 1 {
						t.Errorf("told %d times at once", n)
					}
				}
				failed := b.Stats()
				if count("commit works again") != 0 || failed.CommitErrors < 50 {
					t.Errorf("%d commits failed:\n%s", failed.CommitErrors, said.String())
				}
				time.Sleep(commitHolds)
				if n := count("commit works again"); n != 1 {
					t.Errorf("its end is told %d times", n)
				}
				end()
				log := said.String()
				if l := linesWith(log, "commit failed"); l.most > 1 || len(l.lines) < 5 || len(l.lines) > 6 {
					t.Errorf("commits that fail are told of in %v", l.lines)
				}
				if l := linesWith(log, "works again"); l.times != 50 {
					t.Errorf("the end tells of %d times, of 50", l.times)
				}
				l := linesWith(log, "segment given up")
				if as == syscall.ENOSPC && l.most > 1 || as == syscall.EIO && l.most < 8 {
					t.Errorf("segments given up are told of in %v", l.lines)
				}
				if all := linesWith(log, "level="); as == syscall.ENOSPC && all.most > 6 {
					t.Errorf("%d lines in a minute", all.most)
				}
				if t.Failed() {
					t.Log(log)
				}
			})
		})
	}
}

// TestClosedWhileFailing: of a store that fails the log says at its close, in one line, how it is left; of one that is well, and was, nothing.
func TestClosedWhileFailing(t *testing.T) {
	const fails, works, again = "store closed while it fails", "it no longer fails", "commit works again"
	for name, c := range map[string]struct {
		commits, acked, state, heals bool // commits failed; what they were to write is acknowledged; state.db failed; the disk is well at the close
		want                         string
	}{
		"never failed":     {},
		"commits":          {commits: true, want: fails},
		"nothing to write": {commits: true, acked: true, want: fails},
		"commits, healed":  {commits: true, heals: true, want: again},
		"state.db":         {state: true, want: fails},
		"state.db, healed": {state: true, heals: true, want: works},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said bytes.Buffer
				f := &faulty{kind: "half", as: syscall.ENOSPC, forever: true}
				o := testOptions()
				o.Log = slog.New(slog.NewTextHandler(&said, nil))
				b, err := open(t.TempDir()+"/store", o, f.files())
				if err != nil {
					t.Fatal(err)
				}
				s := mustStream(t, b, "press")
				appendN(t, b, s, 1)
				if !c.commits {
					commitNow(t, b)
				}
				if c.commits || c.state {
					f.failAt, f.count = 1, 0
				}
				b.lockCommit()
				if c.commits {
					_ = b.commit()
				}
				if c.state {
					_ = b.saveCheckpoint(b.checkpointNow())
				}
				b.unlockCommit()
				if c.acked {
					readAll(t, b.Destination("cloud"), true)
				}
				if c.heals {
					f.failAt = 0
				}
				time.Sleep(time.Minute)
				err = b.Close()
				log := said.String()
				for _, line := range []string{fails, works, again} {
					if n := strings.Count(log, line); (n == 1) != (line == c.want) || n > 1 {
						t.Errorf("%q is told %d times:\n%s", line, n, log)
					}
				}
				if lost := strings.Contains(log, "records_lost=1"); lost != (name == "commits") || c.want != fails && err != nil {
					t.Errorf("%v:\n%s", err, log)
				}
			})
		})
	}
}
