package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Account is everything that the checker knows of a run: what the devices served, what arrived, and what
// was done to the gateway meanwhile.
type Account struct {
	Served   []Served
	Arrivals []Arrival
	Words    int       // tags "w0", "w1" … beside "scan" in each record, or as many of them as are compared
	Until    time.Time // answers after it are not counted; zero = all are

	// An answer not older than Window at a kill may be lost: Window is commit_interval plus what a commit
	// itself may take on a machine at rest. So may one between the kill and the restart: the request was on its way.
	Kills  []Kill
	Window time.Duration

	// Stalls are the times when the machine itself stood still. A commit takes that much longer there, and in one of
	// Late or longer one answer a device may come after the driver has given it up.
	Stalls []Stall
	Late   time.Duration

	// Stops are the moments of SIGTERM, and of the end of a server. The poll in flight at that moment may be lost, one a device.
	Stops []time.Time

	OldestFirst bool            // order: oldest-first, so historical and live are one lane
	Excused     map[string]bool // devices whose answers may come too late to be taken
	Passed      map[string]int  // how many answers of a device one single later record may have passed: see gateway/publisher, "The record or the stream?"
}

// Kill is one SIGKILL of the gateway.
type Kill struct {
	At        time.Time
	Restarted time.Time // zero = not yet
}

// Stall is a time when the machine held a process up that did nothing but sleep and write a page to the disk.
type Stall struct{ From, To time.Time }

// stallReach is how long before a kill a stall may still hold up a commit.
const stallReach = 10 * time.Second

// stopWindow is how long before a SIGTERM an answer may have been given and still be unread.
const stopWindow = 200 * time.Millisecond

// Report is the outcome of [Account.Check]. All counts but Duplicates are of records or messages.
type Report struct {
	Served     int // answers that count
	Arrived    int // messages, with duplicates
	Received   int // answers whose values arrived
	Lost       int // answers that arrived nowhere and that nothing excuses
	InWindow   int // answers lost within the window of a kill, or in flight at a stop
	InStall    int // answers lost while the machine stood still, at most one a device and stall
	Parts      int // answers of only some of the registers, which need not arrive, of devices that nothing excuses
	Dropped    int // answers that gap records account for
	Duplicates int // messages that came again, byte for byte
	Conflicts  int // one sequence number, two contents
	Repeats    int // one answer under two sequence numbers
	Inversions int // an answer that arrived after a later one of the same device and lane
	Wrong      int // values that no answer had, answers that no device gave, messages that cannot be read
	Other      int // messages without an answer: bad readings, other groups
	Historical int // messages marked historical
	Gaps       int // gap records that count what was given up
	Outages    int // those that count nothing: a device was not heard, or the gateway not stopped cleanly. They excuse nothing

	OldestLost time.Duration // age at the kill of the oldest answer lost within the window

	Problems []string // the first of what is wrong, in words
}

// maxProblems bounds how many problems a report spells out.
const maxProblems = 20

// Err returns an error that tells every problem, or nil when every promise was kept.
func (r *Report) Err() error {
	if r.Lost+r.Conflicts+r.Repeats+r.Inversions+r.Wrong == 0 {
		return nil
	}
	return fmt.Errorf("ledger: %s\n  %s", r, strings.Join(r.Problems, "\n  "))
}

// String returns every count in one line, as RESULTS.md records it.
func (r *Report) String() string {
	return fmt.Sprintf("served %d, received %d, lost %d, lost in window %d (oldest %d ms), lost in a stall of the machine %d, dropped %d, duplicates %d, "+
		"conflicts %d, repeats %d, inversions %d, wrong %d, other %d, historical %d, gaps %d, outages %d, read in parts %d",
		r.Served, r.Received, r.Lost, r.InWindow, r.OldestLost.Milliseconds(), r.InStall, r.Dropped, r.Duplicates,
		r.Conflicts, r.Repeats, r.Inversions, r.Wrong, r.Other, r.Historical, r.Gaps, r.Outages, r.Parts)
}

func (r *Report) problem(format string, args ...any) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// answer names one answer of one device.
type answer struct {
	device string
	scan   uint32
}

// number names one record of the gateway.
type number struct {
	epoch string
	seq   uint64
}

// lane is a stream that promises order.
type lane struct {
	device     string
	historical bool
}

// last is the newest that a lane has brought.
type last struct {
	scan uint32
	number
}

// check is the state of one pass over the arrivals.
type check struct {
	*Account
	*Report
	served  map[answer]Served
	first   map[number][]byte // the first content of each record
	got     map[answer]number
	lanes   map[lane]last
	passed  map[string]number // by device, the one record that has passed others
	gaps    map[string][]Gap
	dropped map[string]uint64 // readings in gap records, by device
}

// Check compares what was served with what arrived. It reads the account only.
func (a *Account) Check() *Report {
	c := &check{Account: a, Report: &Report{}, served: map[answer]Served{}, first: map[number][]byte{},
		got: map[answer]number{}, lanes: map[lane]last{}, passed: map[string]number{}, gaps: map[string][]Gap{}, dropped: map[string]uint64{}}
	for _, s := range a.Served {
		c.served[answer{s.Device, s.Scan}] = s
	}
	for _, m := range a.Arrivals {
		c.arrival(m)
	}
	c.settle()
	return c.Report
}

// content is what a message says. Whether it came late (historical) is a matter of each sending: the first may have gone
// out at once, and the second after an outage.
func content(payload []byte) []byte {
	return bytes.Replace(payload, []byte(`"historical":true,`), nil, 1)
}

func (c *check) arrival(a Arrival) {
	c.Arrived++
	m, err := parseLast(a.Payload)
	if err != nil {
		c.Wrong++
		c.problem("%s", err)
		return
	}
	n := number{m.Epoch, m.Seq}
	if before, ok := c.first[n]; ok {
		if bytes.Equal(content(before), content(a.Payload)) {
			c.Duplicates++
		} else {
			c.Conflicts++
			c.problem("sequence number %d of epoch %s was used twice: %.200s and %.200s", m.Seq, m.Epoch, before, a.Payload)
		}
		return
	}
	c.first[n] = a.Payload
	if m.Historical {
		c.Historical++
	}
	switch {
	case m.Gap == nil:
	case m.Gap.Cause == "outage" && m.Gap.Count == 0:
		c.Outages++
	default:
		c.Gaps++
		c.gaps[m.Device] = append(c.gaps[m.Device], *m.Gap)
		c.dropped[m.Device] += m.Gap.Count
	}
	scan, ok := m.Scan()
	if !ok {
		if m.Gap == nil {
			c.Other++
		}
		return
	}
	c.answer(answer{m.Device, scan}, n, &m)
}

func (c *check) answer(a answer, n number, m *Message) {
	s, ok := c.served[a]
	if !ok {
		c.Wrong++
		c.problem("message %d says that %s gave answer %d, which it did not", m.Seq, a.device, a.scan)
		return
	}
	c.values(s, m)
	if before, ok := c.got[a]; ok {
		c.Repeats++
		c.problem("answer %d of %s arrived as %v and again as %v", a.scan, a.device, before, n)
		return
	}
	c.got[a] = n
	c.order(a, n, m.Historical)
}

// values holds every value of the message to what the answer held. An answer of some registers has only those,
// and the rest of the message may be of the answers next to it.
func (c *check) values(s Served, m *Message) {
	for i := range c.Words {
		tag := fmt.Sprintf("w%d", i)
		v, ok := m.Values[tag].(json.Number)
		if ok && v.String() == fmt.Sprint(Word(s.Scan, i)) {
			continue
		}
		if s.Part && (!ok || v.String() == fmt.Sprint(Word(s.Scan-1, i)) || v.String() == fmt.Sprint(Word(s.Scan+1, i))) {
			continue
		}
		c.Wrong++
		c.problem("message %d of %s, answer %d: %s is %v (bad: %v), want %d", m.Seq, s.Device, s.Scan, tag, m.Values[tag], m.Bad[tag], Word(s.Scan, i))
	}
}

// order judges first arrivals only. It rests on the device's own numbers; the gateway's must agree.
func (c *check) order(a answer, n number, historical bool) {
	l := lane{a.device, historical && !c.OldestFirst}
	before, ok := c.lanes[l]
	if ok && (a.scan < before.scan || n.epoch == before.epoch && n.seq < before.seq) {
		by, excused := c.passed[a.device]
		if c.Passed[a.device] > 0 && historical && (!excused || by == before.number) {
			c.Passed[a.device]--
			c.passed[a.device] = before.number
			return
		}
		c.Inversions++
		c.problem("%s: answer %d (%v) arrived after answer %d (%v), historical %v", a.device, a.scan, n, before.scan, before.number, historical)
		return
	}
	c.lanes[l] = last{a.scan, n}
}

// settle accounts for each answer that did not arrive.
func (c *check) settle() {
	spent := map[excuse]bool{}
	served := slices.Clone(c.Account.Served)
	slices.SortStableFunc(served, func(a, b Served) int { return b.At.Compare(a.At) })
	missing := map[string]uint64{}
	for _, s := range served {
		if !c.Until.IsZero() && s.At.After(c.Until) || c.Excused[s.Device] {
			continue
		}
		if s.Part {
			c.Parts++
			continue
		}
		c.Report.Served++
		if _, ok := c.got[answer{s.Device, s.Scan}]; ok {
			c.Received++
			continue
		}
		if c.cutOff(s, spent) {
			continue
		}
		readings := uint64(c.Words + 1)
		if c.inGap(s) && (missing[s.Device]+1)*readings <= c.dropped[s.Device] {
			missing[s.Device]++
			c.Dropped++
			continue
		}
		c.Lost++
		c.problem("%s: answer %d of %s is lost%s", s.Device, s.Scan, s.At.Format("15:04:05.000"), c.beforeKill(s.At))
	}
}

// excuse is a moment that may cost a device one answer.
type excuse struct {
	device string
	at     time.Time
}

// cutOff tells whether a kill, a stop or a stall of the machine excuses the loss of an answer, and counts it.
func (c *check) cutOff(s Served, spent map[excuse]bool) bool {
	if age, ok := c.inWindow(s.At); ok {
		c.InWindow++
		c.OldestLost = max(c.OldestLost, age)
		return true
	}
	once := func(at time.Time, count *int) bool {
		if e := (excuse{s.Device, at}); !spent[e] {
			spent[e] = true
			*count++
			return true
		}
		return false
	}
	for _, stop := range c.Stops {
		if d := stop.Sub(s.At); d < stopWindow && d > -stopWindow && once(stop, &c.InWindow) {
			return true
		}
	}
	for _, st := range c.Stalls {
		if c.Late > 0 && st.To.Sub(st.From) >= c.Late && s.At.After(st.From.Add(-stopWindow)) && s.At.Before(st.To.Add(stopWindow)) && once(st.From, &c.InStall) {
			return true
		}
	}
	return false
}

// inWindow returns the age of an answer at the next kill, and whether that kill excuses its loss.
func (c *check) inWindow(at time.Time) (time.Duration, bool) {
	for _, k := range c.Kills {
		age := k.At.Sub(at)
		if age >= 0 && age <= c.Window+3*c.stalled(k.At) {
			return age, true
		}
		if age < 0 && (k.Restarted.IsZero() || !at.After(k.Restarted)) {
			return 0, true
		}
	}
	return 0, false
}

// stalled returns the longest stall that may have held up a commit before a kill.
func (c *check) stalled(kill time.Time) (longest time.Duration) {
	for _, st := range c.Stalls {
		if st.From.Before(kill) && st.To.After(kill.Add(-stallReach)) {
			longest = max(longest, st.To.Sub(st.From))
		}
	}
	return longest
}

// inGap tells whether a gap record of the device covers the time; the gateway's clock is ours.
func (c *check) inGap(s Served) bool {
	for _, g := range c.gaps[s.Device] {
		ms := s.At.UnixMilli()
		if ms >= g.From-1000 && ms <= g.To+1000 {
			return true
		}
	}
	return false
}

func (c *check) beforeKill(at time.Time) string {
	for _, k := range c.Kills {
		if k.At.After(at) {
			return fmt.Sprintf(", %d ms before a kill", k.At.Sub(at).Milliseconds())
		}
	}
	return ""
}
