package main

import (
	"fmt"
	"strings"
	"testing"
)

// payload is a message of format json as the gateway sends it.
func payload(device string, seq, scan int, tags int, historical string) []byte {
	var v []string
	for i := range tags {
		n := scan
		if i == 1 || i == 2 {
			n = 7 // the microsecond of the answer
		}
		v = append(v, fmt.Sprintf(`"t%d":%d`, i, n))
	}
	return fmt.Appendf(nil, `{"gateway":"g","device":"%s","group":"g","epoch":"e","seq":%d,"ts":1,%s"values":{%s},"bad":{}}`,
		device, seq, historical, strings.Join(v, ","))
}

func TestAccountSeesWhatIsWrong(t *testing.T) {
	const tags = 5
	good := func(a *account) {
		for i := 1; i <= 10; i++ {
			a.take(nil, payload("d0", 100+i, i, tags, ""))
		}
	}
	served := simReport{Scans: []uint64{10}}
	for _, c := range []struct {
		name                                    string
		feed                                    func(a *account)
		lost, duplicates, inversions, torn, bad uint64
	}{
		{"all well", good, 0, 0, 0, 0, 0},
		{"a hole", func(a *account) {
			for _, i := range []int{1, 2, 4, 5, 6, 7, 8, 9, 10} {
				a.take(nil, payload("d0", 100+i, i, tags, ""))
			}
		}, tags, 0, 0, 0, 0},
		{"a device that never came", func(*account) {}, 10 * tags, 0, 0, 0, 0},
		{"a duplicate", func(a *account) { good(a); a.take(nil, payload("d0", 105, 5, tags, "")) }, 0, tags, 0, 0, 0},
		{"an inversion", func(a *account) {
			for _, i := range []int{1, 2, 4, 3, 5, 6, 7, 8, 9, 10} {
				a.take(nil, payload("d0", 100+i, i, tags, ""))
			}
		}, 0, 0, 1, 0, 0},
		{"history beside live is no inversion", func(a *account) {
			for _, i := range []int{1, 5, 2, 6, 3, 7, 4, 8, 9, 10} {
				h := ""
				if i > 1 && i < 5 {
					h = `"historical":true,`
				}
				a.take(nil, payload("d0", 100+i, i, tags, h))
			}
		}, 0, 0, 0, 0, 0},
		{"two scans in one message", func(a *account) {
			good(a)
			a.take(nil, []byte(`{"device":"d0","seq":120,"ts":1,"values":{"t0":11,"t1":7,"t2":7,"t3":11,"t4":10},"bad":{}}`))
		}, 0, 0, 0, 1, 0},
		{"a message with a reading missing", func(a *account) {
			good(a)
			a.take(nil, []byte(`{"device":"d0","seq":120,"ts":1,"values":{"t0":11,"t1":7,"t2":7,"t3":11},"bad":{}}`))
		}, 0, 0, 0, 1, 0},
		{"bad readings", func(a *account) {
			good(a)
			a.take(nil, []byte(`{"device":"d0","seq":120,"ts":1,"values":{},"bad":{"t0":"no answer"}}`))
		}, 0, 0, 0, 0, tags},
		{"a gap message", func(a *account) {
			good(a)
			a.take(nil, []byte(`{"device":"d0","group":"","epoch":"e","seq":120,"ts":1,"values":{},"bad":{},"gap":{"from":1,"to":2,"count":7,"unknown":true,"cause":"lost"}}`))
			if a.gapMessages != 1 || a.gapReadings != 7 {
				t.Errorf("%d gap messages of %d readings, want 1 of 7", a.gapMessages, a.gapReadings)
			}
		}, 0, 0, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, r := newAccount(tags), &result{}
			c.feed(a)
			r.balance(a, served, options{Tags: tags, Devices: 1})
			got := [5]uint64{r.Lost, r.Duplicates, r.Inversions, r.Torn, r.Bad}
			if want := [5]uint64{c.lost, c.duplicates, c.inversions, c.torn, c.bad}; got != want {
				t.Errorf("lost, duplicates, inversions, torn, bad = %v, want %v", got, want)
			}
			if (r.Lost > 0 || r.Inversions > 0 || r.Torn > 0) != (r.verdict() != nil) {
				t.Errorf("the verdict is %v", r.verdict())
			}
		})
	}
}

// TestPushedInPieces: scans 2 and 3 come in one message and scan 4 in two; a reading of scan 5 is missing.
func TestPushedInPieces(t *testing.T) {
	const tags = 5
	a, r := newAccount(tags), &result{}
	a.pushed = true
	a.take(nil, payload("d0", 100, 1, tags, ""))
	for _, m := range []string{
		`"values":{"t0":3,"t1":7,"t2":8,"t3":3,"t4":3},"bad":{},"earlier":[{"tag":"t0","ts":5,"value":2},{"tag":"t1","ts":5,"value":6},{"tag":"t3","ts":5,"value":2},{"tag":"t4","ts":5,"value":2}]`,
		`"values":{"t0":4,"t1":7},"bad":{}`,
		`"values":{"t3":4,"t4":4},"bad":{}`,
		`"values":{"t0":5,"t1":7,"t2":8,"t3":5},"bad":{}`,
	} {
		a.take(nil, []byte(`{"device":"d0","seq":120,"ts":1,`+m+`}`))
	}
	a.take(nil, payload("d0", 130, 6, tags, ""))
	r.balance(a, simReport{Scans: []uint64{7}}, options{Tags: tags, Devices: 1})
	if got := [4]uint64{a.readings, r.Lost, r.Torn, r.Duplicates}; got != [4]uint64{5 * tags, tags, 0, 0} {
		t.Errorf("readings, lost, torn, duplicates: %v", got)
	}
}

func TestVerdictOnMemoryAfterReloads(t *testing.T) {
	for after, fine := range map[int64]bool{125: true, 126: false} {
		r := &result{RSS: 100, ReloadRSS: []int64{90, after, 100}}
		if err := r.verdict(); (err == nil) != fine {
			t.Errorf("%d bytes after a reload, 100 before: %v", after, err)
		}
	}
}

// TestFirstScanOfALine: a unit that is asked for its first scan again, before any other, counts it once; nothing else counts less.
func TestFirstScanOfALine(t *testing.T) {
	shared := new(sharedLine)
	a, b, own := &scanDevice{shared: shared}, &scanDevice{shared: shared}, &scanDevice{}
	for _, d := range []*scanDevice{a, a, a, b, b, a, a, b, own, own} {
		d.begin()
	}
	if got, want := [3]uint64{a.scan.Load(), b.scan.Load(), own.scan.Load()}, [3]uint64{3, 2, 2}; got != want {
		t.Errorf("scans %v, want %v", got, want)
	}
}
