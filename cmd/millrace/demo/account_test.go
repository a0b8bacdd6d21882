package demo

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var noTime = time.Unix(1, 0)

func poll(device string, seq uint64, historical bool) []byte {
	return fmt.Appendf(nil, `{"gateway":"g","device":%q,"group":"fast","epoch":"e","seq":%d,"ts":%d,"historical":%v,"values":{"a":%d,"b":true},"bad":{"c":"timeout"}}`,
		device, seq, 1000*seq, historical, seq)
}

func book(t *testing.T, messages ...[]byte) *account {
	t.Helper()
	a := newAccount()
	for _, m := range messages {
		if err := a.take(m, noTime); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func TestAccount(t *testing.T) {
	cases := []struct {
		name     string
		messages [][]byte
		want     totals
	}{
		{"in order", [][]byte{poll("x", 1, false), poll("y", 2, false), poll("x", 3, false)}, totals{good: 6, bad: 3, records: 3}},
		{"a message lost", [][]byte{poll("x", 1, false), poll("x", 2, false), poll("x", 4, false)}, totals{good: 6, bad: 3, records: 3, missing: 1}},
		{"sent again", [][]byte{poll("x", 1, false), poll("x", 2, false), poll("x", 1, false), poll("x", 2, false), poll("x", 3, false)},
			totals{good: 6, bad: 3, records: 3, duplicates: 6}},
		{"out of order", [][]byte{poll("x", 1, false), poll("x", 3, false), poll("x", 2, false)}, totals{good: 6, bad: 3, records: 3, inversions: 1}},
		{"devices apart", [][]byte{poll("x", 2, false), poll("y", 1, false)}, totals{good: 4, bad: 2, records: 2}},
		{"historical beside live", [][]byte{poll("x", 5, false), poll("x", 3, true), poll("x", 6, false), poll("x", 4, true)}, totals{good: 8, bad: 4, records: 4}},
		{"historical out of order", [][]byte{poll("x", 4, true), poll("x", 3, true)}, totals{good: 4, bad: 2, records: 2, inversions: 1}},
		{"gap", [][]byte{[]byte(`{"device":"x","epoch":"e","seq":1,"ts":1,"values":{},"bad":{},"gap":{"count":7}}`)}, totals{records: 1, gone: 7}},
		{"hidden by a later reading", [][]byte{[]byte(`{"device":"x","epoch":"e","seq":1,"values":{"a":1},"bad":{},"earlier":[{"tag":"a","value":2},{"tag":"a","bad":"no"}]}`)},
			totals{good: 2, bad: 1, records: 1}},
	}
	for _, c := range cases {
		if got := book(t, c.messages...).totals(); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestAccountGarbled(t *testing.T) {
	a := newAccount()
	if err := a.take([]byte("{"), time.Now()); err == nil || a.totals().garbled != 1 {
		t.Error("a message that is no JSON passes")
	}
}

// TestNewestIsShown holds that a drained backlog does not turn the live table back.
func TestNewestIsShown(t *testing.T) {
	a := book(t, poll("x", 9, false), poll("x", 3, true))
	if got := string(a.devices["x"].latest["fast/a"].value); got != "9" {
		t.Errorf("shown %s, want 9", got)
	}
	if got := a.devices["x"].latest["fast/c"]; got.quality != "bad" || got.reason != "timeout" {
		t.Errorf("shown %+v", got)
	}
}

func TestRanges(t *testing.T) {
	const seed = 7
	r, have, rnd := ranges{}, map[uint64]bool{}, rand.New(rand.NewPCG(seed, seed))
	for range 2000 {
		n := 1 + rnd.Uint64N(300)
		if got := r.add(n); got == have[n] {
			t.Fatalf("add(%d) = %v, present %v", n, got, have[n])
		}
		have[n] = true
		low, high := uint64(1<<63), uint64(0)
		for n := range have {
			low, high = min(low, n), max(high, n)
		}
		count, missing := r.count()
		if count != uint64(len(have)) || missing != high-low+1-count {
			t.Fatalf("count %d, missing %d, have %d of %d..%d", count, missing, len(have), low, high)
		}
		for i := 1; i < len(r.list); i++ {
			if r.list[i].from <= r.list[i-1].to+1 {
				t.Fatalf("ranges touch: %v", r.list)
			}
		}
	}
}
