package demo

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// message is one poll as it arrives in the cloud: gateway/publisher/jsonmsg describes it. Decoding it here
// again, by the standard library, is the point: the demo's account owes nothing to the gateway's own code.
type message struct {
	Device     string                     `json:"device"`
	Group      string                     `json:"group"`
	Epoch      string                     `json:"epoch"`
	Seq        uint64                     `json:"seq"`
	TS         int64                      `json:"ts"`
	Historical bool                       `json:"historical"`
	Values     map[string]json.RawMessage `json:"values"`
	Bad        map[string]string          `json:"bad"`
	Uncertain  map[string]string          `json:"uncertain"`
	Times      map[string]int64           `json:"times"`
	Earlier    []struct {
		Bad string `json:"bad"`
	} `json:"earlier"`
	Gap *struct {
		Count uint64 `json:"count"`
	} `json:"gap"`
}

func (m *message) readings() (good, bad uint64) {
	good, bad = uint64(len(m.Values)), uint64(len(m.Bad))
	for i := range m.Earlier {
		if m.Earlier[i].Bad != "" {
			bad++
		} else {
			good++
		}
	}
	return good, bad
}

// shown is the newest reading of one tag.
type shown struct {
	value   json.RawMessage
	quality string // good, uncertain or bad
	reason  string
	at      int64 // source time, milliseconds since 1970
}

// arrived is what came from one device.
type arrived struct {
	good, bad  uint64 // readings, each counted once
	duplicates uint64 // readings that had arrived before
	inversions uint64 // messages that came after a later one of their stream
	gone       uint64 // readings that the gateway itself reported as dropped
	latest     map[string]shown
	newest     [2]uint64 // the highest sequence number of the live and of the historical stream
}

// account is the cloud's own account of what it received: it believes nothing but the messages.
type account struct {
	mu      sync.Mutex
	devices map[string]*arrived
	epochs  map[string]*ranges
	first   time.Time // when the first message came
	garbled uint64    // messages that could not be read
}

func newAccount() *account {
	return &account{devices: map[string]*arrived{}, epochs: map[string]*ranges{}}
}

// take books one message. A message whose sequence number was seen before is a duplicate, whatever it holds.
func (a *account) take(payload []byte, now time.Time) error {
	var m message
	err := json.Unmarshal(payload, &m)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.garbled++
		return fmt.Errorf("read message: %w", err)
	}
	if a.first.IsZero() {
		a.first = now
	}
	a.book(&m)
	return nil
}

func (a *account) book(m *message) {
	d := a.devices[m.Device]
	if d == nil {
		d = &arrived{latest: map[string]shown{}}
		a.devices[m.Device] = d
	}
	seen := a.epochs[m.Epoch]
	if seen == nil {
		seen = &ranges{}
		a.epochs[m.Epoch] = seen
	}
	good, bad := m.readings()
	if !seen.add(m.Seq) {
		d.duplicates += good + bad
		return
	}
	d.good += good
	d.bad += bad
	if m.Gap != nil {
		d.gone += m.Gap.Count
	}
	stream := 0
	if m.Historical {
		stream = 1
	}
	if m.Seq < d.newest[stream] {
		d.inversions++
	}
	d.newest[stream] = max(d.newest[stream], m.Seq)
	d.show(m)
}

func (d *arrived) show(m *message) {
	for tag, v := range m.Values {
		s := shown{value: v, quality: "good", at: m.time(tag)}
		if why, ok := m.Uncertain[tag]; ok {
			s.quality, s.reason = "uncertain", why
		}
		d.keep(m.Group+"/"+tag, s)
	}
	for tag, why := range m.Bad {
		d.keep(m.Group+"/"+tag, shown{quality: "bad", reason: why, at: m.time(tag)})
	}
}

func (d *arrived) keep(tag string, s shown) {
	if old, ok := d.latest[tag]; !ok || s.at >= old.at {
		d.latest[tag] = s
	}
}

func (m *message) time(tag string) int64 {
	if at, ok := m.Times[tag]; ok {
		return at
	}
	return m.TS
}

// totals is the account in figures.
type totals struct {
	good, bad, duplicates, inversions, gone, garbled uint64
	records, missing                                 uint64 // sequence numbers seen, and not seen between the first and the last
}

func (a *account) totals() totals {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := totals{garbled: a.garbled}
	for _, d := range a.devices {
		t.good += d.good
		t.bad += d.bad
		t.duplicates += d.duplicates
		t.inversions += d.inversions
		t.gone += d.gone
	}
	for _, r := range a.epochs {
		n, missing := r.count()
		t.records += n
		t.missing += missing
	}
	return t
}

// ranges is a set of sequence numbers, small because they are nearly contiguous.
type ranges struct {
	list []span // ascending, neither overlapping nor touching
}

type span struct{ from, to uint64 } // both inclusive

// add puts n into the set and reports whether it was not there.
func (r *ranges) add(n uint64) bool {
	i, _ := slices.BinarySearchFunc(r.list, n, func(s span, n uint64) int { return cmp.Compare(s.to, n) })
	if i < len(r.list) && r.list[i].from <= n {
		return false
	}
	joinsLeft := i > 0 && r.list[i-1].to+1 == n
	joinsRight := i < len(r.list) && n+1 == r.list[i].from
	switch {
	case joinsLeft && joinsRight:
		r.list[i-1].to = r.list[i].to
		r.list = slices.Delete(r.list, i, i+1)
	case joinsLeft:
		r.list[i-1].to = n
	case joinsRight:
		r.list[i].from = n
	default:
		r.list = slices.Insert(r.list, i, span{n, n})
	}
	return true
}

// count returns how many numbers the set holds and how many are missing between its first and its last.
func (r *ranges) count() (n, missing uint64) {
	for i, s := range r.list {
		n += s.to - s.from + 1
		if i > 0 {
			missing += s.from - r.list[i-1].to - 1
		}
	}
	return n, missing
}
