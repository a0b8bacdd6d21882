package opcua

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
)

// TestBurst: a server that discards events of a burst and does not say so is seen by that: what it sends fills its queue.
func TestBurst(t *testing.T) {
	s := start(t, opcuasim.Options{MaxQueue: 10}, 1)
	s.AddNotifier("press")
	c := connection(s.Endpoint(), 10*time.Second, "ns=2;s=press", "ns=2;s=press", "i=2253")
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	eventTag(c, 0, nil)
	eventTag(c, 1, map[string]string{"min_severity": "600"})
	eventTag(c, 2, nil)
	_, pushes := subscribed(t, c)
	burst := func(n int) (came, lost map[uint32]int, note string) {
		s.SetUnpublished(true)
		for i := range n {
			s.Raise(opcuasim.Event{Node: "press", Message: fmt.Sprint(i), Severity: 500})
		}
		s.Raise(opcuasim.Event{Node: "press", Message: "last", Severity: 900})
		s.SetUnpublished(false)
		came, lost = map[uint32]int{}, map[uint32]int{}
		left := 3
		next(t, pushes, func(p *drivers.Push) bool {
			if note += p.Note; len(p.Tags) != p.Lost {
				t.Errorf("%d lost of tags %v", p.Lost, p.Tags)
			}
			for _, tag := range p.Tags {
				lost[tag]++
			}
			for _, r := range p.Readings {
				came[r.Tag]++
				if strings.Contains(r.Value.Text, `"last"`) {
					left--
				}
			}
			return left == 0
		})
		return came, lost, note
	}
	const shorter = "the server keeps 10 events of some tags, not 1000"
	next(t, pushes, func(p *drivers.Push) bool {
		if p.Note != shorter {
			t.Errorf("at first: %q, want %q", p.Note, shorter)
		}
		return true
	})
	const words = "the server's queue was full: it sent 10 events at once, as many as it keeps; more may be lost: see event_type and min_severity, or tags of single machines, for fewer at once"
	if _, lost, note := burst(1); len(lost) > 0 || note != "" {
		t.Errorf("few: lost %v, %q", lost, note)
	}
	for range 2 {
		came, lost, note := burst(30)
		if came[0] != 10 || came[1] != 1 || came[2] != 10 || len(lost) != 2 || lost[0] != 1 || lost[2] != 1 || !strings.Contains(note, words) {
			t.Errorf("many: came %v, lost %v, %q", came, lost, note)
		}
	}
	if came, lost, _ := burst(5); came[0] != 6 || len(lost) > 0 {
		t.Errorf("some: came %v, lost %v", came, lost)
	}
}

// TestBurstOfManyMessages: what comes without a pause is one burst, and what the server says itself is not said again.
func TestBurstOfManyMessages(t *testing.T) {
	for _, c := range []struct {
		queue uint32
		what  string // e an event, o an overflow that the server tells, . a pause
		want  []int
	}{
		{3, "ee.ee.ee", nil},
		{3, "eee", []int{7}},
		{3, "eeeeeee.e", []int{7}},
		{3, "eee.eee", []int{7, 7}},
		{3, "oeee", []int{7}},
		{3, "eeeo", []int{7}},
		{3, "oeeo", []int{7, 7}},
		{1, "e.e.e", nil},
		{0, "o", []int{7}},
	} {
		var b burst
		if c.queue > 0 {
			b.holds(7, c.queue)
		}
		var p drivers.Push
		for _, what := range c.what {
			switch what {
			case 'e':
				b.came(7, &p)
			case 'o':
				b.overflow(7, &p)
			default:
				b.over()
			}
		}
		var got []int
		for _, tag := range p.Tags {
			got = append(got, int(tag))
		}
		if !slices.Equal(got, c.want) || p.Lost != len(got) {
			t.Errorf("%d %s: lost %v, want %v", c.queue, c.what, got, c.want)
		}
	}
}
