package main

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"
)

// account checks every single reading that arrives. Each simulated device serves, in all its registers, the
// number of its current scan; the first three say: scan, and the microsecond of the answer in two 16-bit
// halves. So a message is complete when all its values are one scan, and a device is complete when its scans have no hole.
type account struct {
	mu      sync.Mutex
	tags    int
	pushed  bool // see pieces
	devices map[string]*deviceAccount

	messages, readings, bad, torn uint64
	gapMessages, gapReadings      uint64 // readings that gap messages say are lost
	duplicates, conflicts         uint64
	inversions, historical        uint64
	lat                           []int32 // µs
	told                          int     // of lat, that recentP99 has told
	gaps                          []int32 // µs between the scans of a device, less the interval is its jitter
}

type deviceAccount struct {
	live, hist uint64 // last sequence number of each lane
	scans      ranges
	seqs       ranges
	told       map[uint64]int // readings of scans that are not whole
	answered   uint32         // µs of the last live scan
	scan       uint64         // its number
}

func newAccount(tags int) *account {
	return &account{tags: tags, devices: map[string]*deviceAccount{}}
}

// take is called for each message by one goroutine.
func (a *account) take(_, payload []byte) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.messages++
	m, ok := parseMessage(payload)
	if !ok {
		a.torn++
		return
	}
	d := a.devices[string(m.device)]
	if d == nil {
		d = &deviceAccount{}
		a.devices[string(m.device)] = d
	}
	if m.historical {
		a.historical++
	}
	a.order(d, &m)
	if m.gap {
		a.gapMessages++
		a.gapReadings += m.gapCount
		return
	}
	v := scanValues(m.values, a.tags)
	if v.n == 0 {
		a.bad += uint64(a.tags)
		return
	}
	if a.pushed && (v.torn || v.n != a.tags || bytes.Contains(payload, []byte(`"earlier":`))) {
		a.pieces(d, payload)
		return
	}
	if v.torn || v.n != a.tags {
		a.torn++
		return
	}
	if !d.scans.add(v.scan) {
		a.duplicates += uint64(v.n)
		return
	}
	a.readings += uint64(v.n)
	if !m.historical && a.tags >= 3 {
		answered := uint32(v.hi)<<16 | uint32(v.lo)
		a.lat = append(a.lat, int32(min(uint32(now.UnixMicro())-answered, 1<<31-1)))
		if d.scan > 0 && v.scan == d.scan+1 {
			a.gaps = append(a.gaps, int32(answered-d.answered))
		}
		d.answered, d.scan = answered, v.scan
	}
}

// order counts inversions by sequence number within a device and lane.
func (a *account) order(d *deviceAccount, m *message) {
	if m.seq == 0 || !d.seqs.add(m.seq) {
		return
	}
	last := &d.live
	if m.historical {
		last = &d.hist
	}
	if m.seq < *last {
		a.inversions++
	}
	*last = max(*last, m.seq)
}

type counts struct{ messages, readings uint64 }

func (a *account) count() counts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return counts{a.messages, a.readings}
}

func (a *account) resetLatency() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lat, a.gaps, a.told = a.lat[:0], a.gaps[:0], 0
}

// recentP99 returns the 99th percentile, in ms, of the latencies since it was called last; 0 when there are none.
func (a *account) recentP99() float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := slices.Clone(a.lat[a.told:])
	a.told = len(a.lat)
	if len(l) == 0 {
		return 0
	}
	slices.Sort(l)
	return float64(l[len(l)*99/100]) / 1000
}

// behind returns how many of the scans served have not arrived.
func (a *account) behind(served []uint64) (n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, scans := range served {
		if d := a.devices[fmt.Sprintf("d%d", i)]; d != nil {
			n += d.scans.missingUpTo(scans)
		}
	}
	return n
}

// jitter returns the 99th percentile, in ms, of how far the time between two scans is from the interval.
func (a *account) jitter(interval time.Duration) float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.gaps) == 0 {
		return 0
	}
	off := make([]int32, len(a.gaps))
	for i, g := range a.gaps {
		off[i] = max(g-int32(interval.Microseconds()), int32(interval.Microseconds())-g)
	}
	slices.Sort(off)
	return float64(off[min(len(off)-1, len(off)*99/100)]) / 1000
}

func (a *account) percentiles() (p50, p99, worst float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.lat) == 0 {
		return 0, 0, 0
	}
	l := slices.Clone(a.lat)
	slices.Sort(l)
	at := func(q float64) float64 { return float64(l[min(len(l)-1, int(q*float64(len(l))))]) / 1000 }
	return at(0.50), at(0.99), float64(l[len(l)-1]) / 1000
}

// ranges is a set of numbers kept as sorted half-open intervals.
type ranges struct{ r [][2]uint64 }

// add puts n into the set and reports whether it was new.
func (s *ranges) add(n uint64) bool {
	if k := len(s.r); k > 0 && s.r[k-1][1] == n { // in order: the common case
		s.r[k-1][1]++
		return true
	}
	i := sort.Search(len(s.r), func(i int) bool { return s.r[i][1] > n })
	if i < len(s.r) && s.r[i][0] <= n {
		return false
	}
	left := i > 0 && s.r[i-1][1] == n
	right := i < len(s.r) && s.r[i][0] == n+1
	switch {
	case left && right:
		s.r[i-1][1] = s.r[i][1]
		s.r = slices.Delete(s.r, i, i+1)
	case left:
		s.r[i-1][1]++
	case right:
		s.r[i][0]--
	default:
		s.r = slices.Insert(s.r, i, [2]uint64{n, n + 1})
	}
	return true
}

// missingUpTo returns how many of 1..last are not in the set; the last one itself may still be on its way.
func (s *ranges) missingUpTo(last uint64) uint64 {
	n := uint64(0)
	for _, r := range s.r {
		n += min(r[1], last) - min(max(r[0], 1), last)
	}
	return max(last, 1) - 1 - n
}

// message is what the account needs of one payload of `format: json`, or of Telegraf's.
type message struct {
	device, values []byte
	seq            uint64
	historical     bool
	gap            bool
	gapCount       uint64
}

func parseMessage(p []byte) (m message, ok bool) {
	m.device = between(p, `"device":"`, '"')
	if m.values = after(p, `"values":{`); m.values == nil {
		m.values = after(p, `"fields":{`)
	}
	m.seq = number(between(p, `"seq":`, ','))
	m.historical = bytes.Contains(p[:len(p)-len(m.values)], []byte(`"historical":true`)) ||
		bytes.Contains(p[max(0, len(p)-64):], []byte(`"historical":true`))
	if gap := after(m.values, `},"bad":{},"gap":{`); gap != nil && m.values[0] == '}' {
		m.gap, m.gapCount = true, number(between(gap, `"count":`, ','))
	}
	return m, m.device != nil && m.values != nil
}

func number(digits []byte) (n uint64) {
	for _, c := range digits {
		n = n*10 + uint64(c-'0')
	}
	return n
}

func after(p []byte, key string) []byte {
	i := bytes.Index(p, []byte(key))
	if i < 0 {
		return nil
	}
	return p[i+len(key):]
}

func between(p []byte, key string, end byte) []byte {
	p = after(p, key)
	if i := bytes.IndexByte(p, end); i >= 0 {
		return p[:i]
	}
	return nil
}

type scanned struct {
	n      int
	scan   uint64
	hi, lo uint64
	torn   bool
}

// scanValues reads the numbers of `"t0":1,"t1":2,…}` and checks that all but the two of the time are equal.
func scanValues(p []byte, tags int) (s scanned) {
	for len(p) > 0 && p[0] != '}' {
		colon := bytes.IndexByte(p, ':')
		if colon < 0 {
			return s
		}
		p = p[colon+1:]
		var v uint64
		i := 0
		for i < len(p) && p[i] >= '0' && p[i] <= '9' {
			v = v*10 + uint64(p[i]-'0')
			i++
		}
		switch {
		case s.n == 0:
			s.scan = v
		case s.n == 1 && tags >= 3:
			s.hi = v
		case s.n == 2 && tags >= 3:
			s.lo = v
		case v != s.scan:
			s.torn = true
		}
		s.n++
		p = p[i:]
		if len(p) > 0 && p[0] == ',' {
			p = p[1:]
		}
	}
	return s
}
