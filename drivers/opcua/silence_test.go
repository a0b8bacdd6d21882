package opcua

import (
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// of returns the next push that has a reading of a tag, and that.
func of(t *testing.T, pushes <-chan drivers.Push, tag uint32) telemetry.Reading {
	t.Helper()
	var got telemetry.Reading
	next(t, pushes, func(p *drivers.Push) (found bool) {
		for _, r := range p.Readings { // the last: on a slow machine two samples are in one push
			if r.Tag == tag {
				got, found = r, true
			}
		}
		return found
	})
	return got
}

// silenced subscribes to tag 0, which counts, and tag 1, which changes when the test says so.
func silenced(t *testing.T, group, device map[string]string) (*opcuasim.Server, *atomic.Int64, <-chan drivers.Push) {
	s := start(t, opcuasim.Options{}, 0)
	tally(s, "n")
	x := new(atomic.Int64)
	s.AddVariable("x", func() any { return x.Load() })
	c := connection(s.Endpoint(), 10*time.Second, "ns=2;s=n", "ns=2;s=x", "ns=2;s=missing")
	c.Devices[0].Groups[0].Interval, c.Devices[0].Groups[0].Options = 50*time.Millisecond, group
	for k, v := range device {
		c.Devices[0].Options[k] = v
	}
	_, pushes := subscribed(t, c)
	return s, x, pushes
}

// TestMaxSilence: while all other tags are pushed, one of which nothing was heard for so long is bad, once, until it is pushed again. One
// that the server does not know stays bad with the server's reason.
func TestMaxSilence(t *testing.T) {
	_, x, pushes := silenced(t, map[string]string{"max_silence": "1s"}, nil)
	if r := of(t, pushes, 1); r.Quality != telemetry.Good {
		t.Fatalf("%+v", r)
	}
	begin := time.Now()
	var r telemetry.Reading
	next(t, pushes, func(p *drivers.Push) bool {
		for i := range p.Readings {
			switch p.Readings[i].Tag {
			case 1:
				r = p.Readings[i]
			case 2:
				t.Errorf("said of a tag that the server refuses: %+v", p.Readings[i])
			}
		}
		return r.Reason != ""
	})
	if r.Quality != telemetry.Bad || r.Reason != "the server has said nothing of it for 1s" || r.Value.Kind != telemetry.KindNone {
		t.Errorf("%+v", r)
	}
	if took := time.Since(begin); took < 900*time.Millisecond {
		t.Errorf("silent after %v", took)
	}
	until := time.Now().Add(2 * time.Second)
	next(t, pushes, func(p *drivers.Push) bool {
		for _, r := range p.Readings {
			if r.Tag != 0 {
				t.Errorf("said again, or of another: %+v", r)
			}
		}
		return time.Now().After(until)
	})
	x.Add(1)
	if r := of(t, pushes, 1); r.Quality != telemetry.Good || r.Value.Bits != 1 {
		t.Errorf("%+v", r)
	}
}

// TestLastKnown: with on_silence: last-known it is uncertain, and keeps its value and its time.
func TestLastKnown(t *testing.T) {
	_, x, pushes := silenced(t, map[string]string{"max_silence": "1s", "on_silence": "last-known"}, nil)
	x.Store(7)
	good := of(t, pushes, 1)
	for good.Value.Bits != 7 {
		good = of(t, pushes, 1)
	}
	r := of(t, pushes, 1)
	if r.Quality != telemetry.Uncertain || r.Value != good.Value || r.Time != good.Time || r.Reason == "" {
		t.Errorf("got %+v after %+v", r, good)
	}
}

// TestConfirmed: a value that a read finds unchanged is not silent.
func TestConfirmed(t *testing.T) {
	t.Parallel()
	_, _, pushes := silenced(t, map[string]string{"max_silence": "8s"}, map[string]string{"verify_interval": "1s"})
	of(t, pushes, 1)
	until := time.Now().Add(12 * time.Second)
	next(t, pushes, func(p *drivers.Push) bool {
		for _, r := range p.Readings {
			if r.Tag == 1 {
				t.Errorf("%+v", r)
			}
		}
		return time.Now().After(until)
	})
}
