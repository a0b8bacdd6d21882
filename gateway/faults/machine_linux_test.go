package faults

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// machine is what is known of the machine itself.
type machine struct {
	mu      sync.Mutex
	stalls  []Stall
	waiting []waited // one a second
}

// waited is how long, until a moment, some process of this machine that could have run has had no processor.
type waited struct {
	at time.Time
	d  time.Duration
}

// look notes how long that is, where the kernel says so.
func (m *machine) look() {
	if n := len(m.waiting); n > 0 && time.Since(m.waiting[n-1].at) < time.Second { // nobody else writes it
		return
	}
	text, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		return
	}
	_, total, _ := strings.Cut(string(text), "total=")
	total, _, _ = strings.Cut(total, "\n")
	us, err := strconv.ParseInt(total, 10, 64)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.waiting = append(m.waiting, waited{time.Now(), time.Duration(us) * time.Microsecond})
	}
}

// starved is the share of a time in which some process waited for a processor; 0 = not known.
func (m *machine) starved(from, to time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var first, last *waited
	for i := range m.waiting {
		switch w := &m.waiting[i]; {
		case !w.at.After(from) || first == nil:
			first, last = w, w
		case !w.at.After(to):
			last = w
		}
	}
	if first == last {
		return 0
	}
	return float64(last.d-first.d) / float64(last.at.Sub(first.at))
}

// tooBusy is that share from which on a machine may delay a poll by more than the gateway is to blame for.
const tooBusy = 0.5

// noticed is the shortest stall that is noted: less is every machine's noise.
const noticed = 10 * time.Millisecond

func (m *machine) note(from, to time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if to.Sub(from) >= noticed {
		m.stalls = append(m.stalls, Stall{from, to})
	}
}

// stalled returns all stalls, and the longest.
func (m *machine) stalled() (all []Stall, longest time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.stalls {
		longest = max(longest, s.To.Sub(s.From))
	}
	return slices.Clone(m.stalls), longest
}

// watchMachine measures how long the machine itself holds a process up: a short sleep and an fsync, again and
// again. On a busy machine a commit takes that much longer, through no fault of the gateway.
func (b *bed) watchMachine() {
	f, err := os.Create(filepath.Join(b.dir, "probe"))
	must(b.t, err)
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			begin := time.Now()
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
			f.WriteAt(make([]byte, 4096), 0)
			f.Sync()
			b.machine.note(begin.Add(20*time.Millisecond), time.Now())
			b.machine.look()
		}
	})
	b.t.Cleanup(func() { close(done); watch.Wait(); f.Close() })
}
