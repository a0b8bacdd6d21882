package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// payload is the message that a faultless gateway would send of answer scan.
func payload(device string, seq, scan int, historical bool) string {
	mark := ""
	if historical {
		mark = `,"historical":true`
	}
	return fmt.Sprintf(`{"gateway":"g","device":%q,"group":"a","epoch":"e1","seq":%d,"ts":1%s,"values":{"scan":%d,"w0":%d,"w1":%d},"bad":{}}`,
		device, seq, mark, scan, Word(uint32(scan), 0), Word(uint32(scan), 1))
}

func gapPayload(device string, seq, from, to, readings int) string {
	ms := func(scan int) int64 { return noon.Add(time.Duration(scan) * time.Second).UnixMilli() }
	return fmt.Sprintf(`{"gateway":"g","device":%q,"group":"a","epoch":"e1","seq":%d,"ts":1,"values":{},"bad":{},"gap":{"from":%d,"to":%d,"count":%d,"cause":"full","first_seq":1,"last_seq":2}}`,
		device, seq, ms(from), ms(to), readings)
}

// faultless is a run of two devices with 40 answers each, one a second, all delivered in order.
func faultless() *Account {
	a := &Account{Words: 2, Late: 2 * time.Second}
	for scan := 1; scan <= 40; scan++ {
		for i, device := range []string{"d1", "d2"} {
			a.Served = append(a.Served, Served{Device: device, Scan: uint32(scan), At: noon.Add(time.Duration(scan) * time.Second)})
			a.Arrivals = append(a.Arrivals, Arrival{Payload: []byte(payload(device, 2*scan+i, scan, false))})
		}
	}
	return a
}

// kill is a kill and a restart, in ms after noon.
func kill(at, restarted int) []Kill {
	ms := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Millisecond) }
	return []Kill{{ms(at), ms(restarted)}}
}

// stall is a stall of the machine, in ms after noon.
func stall(from, to int) []Stall {
	ms := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Millisecond) }
	return []Stall{{ms(from), ms(to)}}
}

func drop(a *Account, i int) { a.Arrivals = append(a.Arrivals[:i:i], a.Arrivals[i+1:]...) }

// planting is one fault and what the checker has to say of it.
type planting struct {
	name  string
	plant func(a *Account)
	want  Report
	says  string
}

// TestCheckerSees plants each kind of fault in a faultless run: the checker must see exactly that one.
// These are the negative controls of every scenario.
func TestCheckerSees(t *testing.T) {
	for _, c := range slices.Concat(lossesAndNumbers(), orderAndValues(), excuses(), stalls()) {
		t.Run(c.name, func(t *testing.T) {
			a := faultless()
			c.plant(a)
			got := a.Check()
			same(t, got, &c.want)
			wrong := c.want.Lost+c.want.Conflicts+c.want.Repeats+c.want.Inversions+c.want.Wrong > 0
			err := got.Err()
			if wrong != (err != nil) {
				t.Fatalf("error is %v, want one: %v", err, wrong)
			}
			if wrong && !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q does not say %q", err, c.says)
			}
		})
	}
}

// lossesAndNumbers plants loss, duplicates and the use of sequence numbers.
func lossesAndNumbers() []planting {
	return []planting{
		{"nothing wrong", func(*Account) {}, Report{}, ""},
		{"a loss", func(a *Account) { drop(a, 20) }, Report{Lost: 1}, "answer 11 of 12:00:11.000 is lost"},
		{"a loss at the end", func(a *Account) { drop(a, 79) }, Report{Lost: 1}, "d2: answer 40"},
		{"a loss of everything", func(a *Account) { a.Arrivals = nil }, Report{Lost: 80}, "is lost"},
		{"a duplicate", func(a *Account) { a.Arrivals = append(a.Arrivals, a.Arrivals[20]) }, Report{Duplicates: 1}, ""},
		{"a number used twice", func(a *Account) {
			a.Arrivals = append(a.Arrivals, Arrival{Payload: []byte(strings.Replace(string(a.Arrivals[20].Payload), `"ts":1`, `"ts":2`, 1))})
		}, Report{Conflicts: 1}, "used twice"},
		{"a number used for another answer", func(a *Account) {
			a.Arrivals[22].Payload = []byte(payload("d1", 22, 12, false))
		}, Report{Conflicts: 1, Lost: 1}, "used twice"},
		{"an answer under two numbers", func(a *Account) {
			a.Arrivals = append(a.Arrivals, Arrival{Payload: []byte(payload("d1", 999, 40, false))})
		}, Report{Repeats: 1}, "and again as"},
	}
}

// orderAndValues plants order, lanes and values.
func orderAndValues() []planting {
	return []planting{
		{"an inversion", func(a *Account) {
			a.Arrivals[20], a.Arrivals[22] = a.Arrivals[22], a.Arrivals[20]
		}, Report{Inversions: 1}, "arrived after"},
		{"an inversion of numbers only", func(a *Account) {
			a.Arrivals[20].Payload = []byte(payload("d1", 1000, 11, false))
			a.Arrivals[78].Payload = []byte(payload("d1", 1001, 40, false))
		}, Report{Inversions: 28}, "arrived after"},
		{"two devices interleaved otherwise", func(a *Account) {
			a.Arrivals[20], a.Arrivals[21] = a.Arrivals[21], a.Arrivals[20]
		}, Report{}, ""},
		{"a backlog beside live data", func(a *Account) {
			historical(a, 10, 20)
		}, Report{Historical: 5}, ""},
		{"a backlog beside live data, oldest first", func(a *Account) {
			historical(a, 10, 20)
			a.OldestFirst = true
		}, Report{Historical: 5, Inversions: 5}, "arrived after"},
		{"a backlog out of order", func(a *Account) {
			historical(a, 10, 20)
			n := len(a.Arrivals)
			a.Arrivals[n-1], a.Arrivals[n-2] = a.Arrivals[n-2], a.Arrivals[n-1]
		}, Report{Historical: 5, Inversions: 1}, "historical true"},
		{"a backlog of which a record may be passed", func(a *Account) {
			historical(a, 10, 20)
			n := len(a.Arrivals)
			a.Arrivals[n-1], a.Arrivals[n-3] = a.Arrivals[n-3], a.Arrivals[n-1]
			a.Passed = map[string]int{"d0": 1, "d1": 1}
		}, Report{Historical: 5, Inversions: 1}, "historical true"},
		{"a backlog in which two records pass others", func(a *Account) {
			historical(a, 10, 20)
			n := len(a.Arrivals)
			a.Arrivals[n-5], a.Arrivals[n-4] = a.Arrivals[n-4], a.Arrivals[n-5]
			a.Arrivals[n-2], a.Arrivals[n-1] = a.Arrivals[n-1], a.Arrivals[n-2]
			a.Passed = map[string]int{"d0": 8, "d1": 8}
		}, Report{Historical: 5, Inversions: 1}, "historical true"},
		{"a wrong value", func(a *Account) {
			a.Arrivals[20].Payload = []byte(strings.Replace(string(a.Arrivals[20].Payload), `"w1":`, `"w1":1`, 1))
		}, Report{Wrong: 1}, "want"},
		{"a missing value", func(a *Account) {
			a.Arrivals[20].Payload = []byte(strings.Replace(string(a.Arrivals[20].Payload), `"w1":`, `"x":`, 1))
		}, Report{Wrong: 1}, "w1 is <nil>"},
		{"an answer of some registers", func(a *Account) {
			a.Served[20].Part, a.Served[22].Part = true, true
			a.Arrivals[20].Payload = []byte(strings.Replace(payload("d1", 22, 11, false), fmt.Sprintf(`"w1":%d`, Word(11, 1)), fmt.Sprintf(`"w1":%d`, Word(10, 1)), 1))
			drop(a, 22)
		}, Report{Parts: 2}, ""},
		{"a wrong value in an answer of some registers", func(a *Account) {
			a.Served[20].Part = true
			a.Arrivals[20].Payload = []byte(strings.Replace(string(a.Arrivals[20].Payload), `"w1":`, `"w1":1`, 1))
		}, Report{Parts: 1, Wrong: 1}, "want"},
		{"another device's value", func(a *Account) {
			a.Served = append(a.Served[:20:20], a.Served[21:]...)
		}, Report{Wrong: 1}, "which it did not"},
		{"garbage", func(a *Account) { a.Arrivals = append(a.Arrivals, Arrival{Payload: []byte("{")}) }, Report{Wrong: 1}, "read message"},
	}
}

// excuses plants what excuses a loss, and how far.
func excuses() []planting {
	return []planting{
		{"a loss within the window of a kill", func(a *Account) {
			drop(a, 20)
			a.Kills, a.Window = kill(11900, 11950), time.Second
		}, Report{InWindow: 1}, ""},
		{"a loss older than the window of a kill", func(a *Account) {
			drop(a, 20)
			a.Kills, a.Window = kill(12100, 12200), time.Second
		}, Report{Lost: 1}, "1100 ms before a kill"},
		{"a loss after a kill", func(a *Account) {
			drop(a, 20)
			a.Kills, a.Window = kill(10900, 10950), time.Second
		}, Report{Lost: 1}, "is lost"},
		{"a request that outlived its gateway", func(a *Account) {
			drop(a, 20)
			a.Kills, a.Window = kill(10990, 11010), time.Second
		}, Report{InWindow: 1}, ""},
		{"a poll in flight at a stop", func(a *Account) {
			drop(a, 20)
			a.Stops = []time.Time{noon.Add(11050 * time.Millisecond)}
		}, Report{InWindow: 1}, ""},
		{"a drop that is accounted for", func(a *Account) {
			drop(a, 20)
			a.Arrivals = append(a.Arrivals, Arrival{Payload: []byte(gapPayload("d1", 500, 11, 11, 3))})
		}, Report{Dropped: 1, Gaps: 1}, ""},
		{"a drop beyond what is accounted for", func(a *Account) {
			drop(a, 22)
			drop(a, 20)
			a.Arrivals = append(a.Arrivals, Arrival{Payload: []byte(gapPayload("d1", 500, 11, 12, 3))})
		}, Report{Dropped: 1, Lost: 1, Gaps: 1}, "is lost"},
		{"a drop accounted for at another time", func(a *Account) {
			drop(a, 20)
			a.Arrivals = append(a.Arrivals, Arrival{Payload: []byte(gapPayload("d1", 500, 30, 31, 3))})
		}, Report{Lost: 1, Gaps: 1}, "is lost"},
		{"a drop accounted for on another device", func(a *Account) {
			drop(a, 20)
			a.Arrivals = append(a.Arrivals, Arrival{Payload: []byte(gapPayload("d2", 500, 11, 11, 3))})
		}, Report{Lost: 1, Gaps: 1}, "is lost"},
		{"a late answer that is excused", func(a *Account) {
			drop(a, 20)
			a.Excused = map[string]bool{"d1": true}
		}, Report{}, ""},
		{"an answer after the end", func(a *Account) {
			drop(a, 78)
			a.Until = noon.Add(39 * time.Second)
		}, Report{}, ""},
	}
}

// stalls plants machines that stood still: what that excuses, and no more.
func stalls() []planting {
	return []planting{
		{"a loss in a long stall of the machine", func(a *Account) {
			drop(a, 20)
			a.Stalls = stall(8500, 11000)
		}, Report{InStall: 1}, ""},
		{"two losses of one device in a long stall", func(a *Account) {
			drop(a, 20)
			drop(a, 18)
			a.Stalls = stall(8500, 11000)
		}, Report{InStall: 1, Lost: 1}, "is lost"},
		{"a loss beside a long stall", func(a *Account) {
			drop(a, 20)
			a.Stalls = append(stall(8500, 10500), stall(11500, 15000)...)
		}, Report{Lost: 1}, "is lost"},
		{"a loss in a short stall", func(a *Account) {
			drop(a, 20)
			a.Stalls = stall(10500, 11500)
		}, Report{Lost: 1}, "is lost"},
		{"a stall widens the window of the kill after it", func(a *Account) {
			drop(a, 20)
			a.Kills, a.Window, a.Stalls = kill(12100, 12200), time.Second, stall(11900, 12000)
		}, Report{InWindow: 1}, ""},
		{"a stall long before a kill does not", func(a *Account) {
			drop(a, 40)
			a.Kills, a.Window, a.Stalls = kill(22100, 22200), time.Second, stall(11900, 12000)
		}, Report{Lost: 1}, "before a kill"},
	}
}

// historical moves the answers of d1 from a to b to the end, marked as a backlog, as live-first does.
func historical(a *Account, from, to int) {
	var rest []Arrival
	for i, m := range a.Arrivals {
		if i%2 != 0 || i < from || i >= to {
			rest = append(rest, m)
		}
	}
	for i := from; i < to; i += 2 {
		rest = append(rest, Arrival{Payload: []byte(payload("d1", i+2, i/2+1, true))})
	}
	a.Arrivals = rest
}

func same(t *testing.T, got, want *Report) {
	t.Helper()
	for _, f := range []struct {
		name      string
		got, want int
	}{
		{"lost", got.Lost, want.Lost}, {"in window", got.InWindow, want.InWindow}, {"in a stall", got.InStall, want.InStall},
		{"parts", got.Parts, want.Parts}, {"dropped", got.Dropped, want.Dropped},
		{"duplicates", got.Duplicates, want.Duplicates}, {"conflicts", got.Conflicts, want.Conflicts},
		{"repeats", got.Repeats, want.Repeats}, {"inversions", got.Inversions, want.Inversions},
		{"wrong", got.Wrong, want.Wrong}, {"historical", got.Historical, want.Historical}, {"gaps", got.Gaps, want.Gaps},
	} {
		if f.got != f.want {
			t.Errorf("%s: %d, want %d (%v)", f.name, f.got, f.want, got.Problems)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte(payload("d1", 1, 1, false)))
	f.Add([]byte(gapPayload("d1", 1, 1, 2, 3)))
	f.Add([]byte(`{"epoch":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseMessage(b); err == nil {
			m.Scan()
		}
	})
}
