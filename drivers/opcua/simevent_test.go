package opcua

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// TestRefusedRefresh: that a server does not tell which conditions stand is said once, and at the tag.
func TestRefusedRefresh(t *testing.T) {
	s := start(t, opcuasim.Options{RefuseRefresh: uint32(ua.StatusBadMethodInvalid)}, 1)
	d, pushes := subscribed(t, ofPress(s))
	const words = "the server does not tell which conditions stand (ConditionRefresh: BadMethodInvalid: "
	p := next(t, pushes, func(p *drivers.Push) bool { return p.Note != "" || len(p.Readings) > 0 })
	if !strings.HasPrefix(p.Note, words) || len(p.Readings) != 1 || !strings.Contains(p.Readings[0].Value.Text, `{"subscribed":true,"note":"`+words) {
		t.Errorf("%+v", p)
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if p := next(t, d.Pushed(), func(p *drivers.Push) bool { return len(p.Readings) > 0 }); p.Note != "" {
		t.Errorf("said again: %s", p.Note)
	}
}

// TestEvents takes the events of a machine through filters, and after a reconnect those that stand.
func TestEvents(t *testing.T) {
	s := start(t, opcuasim.Options{Browsable: true}, 1)
	s.AddNotifier("press")
	s.Raise(opcuasim.Event{Node: "press", Type: id.AlarmConditionType, Condition: "hot", Message: "stands", Severity: 700, Active: true, Retain: true})
	c := connection(s.Endpoint(), 10*time.Second, "i=2253", "ns=2;s=press", "ns=2;s=press", "ns=2;s=press", "ns=2;s=v0", "ns=2;s=none")
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	eventTag(c, 0, nil)
	eventTag(c, 1, nil)
	eventTag(c, 2, map[string]string{"min_severity": "500"})
	eventTag(c, 3, map[string]string{"event_type": "i=2915"})
	d, pushes := subscribed(t, c)
	if tags := d.Events(drivers.Ref{}); !slices.Equal(tags, []int{0, 1, 2, 3}) {
		t.Errorf("tags of events: %v", tags)
	}
	got := make([][]string, 4)
	take := func(pushes <-chan drivers.Push) {
		told(t, pushes, func(tag int, e *happened) bool {
			if !e.Subscribed {
				word := e.Message
				if e.Refresh {
					word += " again"
				}
				got[tag] = append(got[tag], word)
			}
			return e.Subscribed && tag == 3
		})
		s.Raise(opcuasim.Event{Message: "server", Severity: 900})
		s.Raise(opcuasim.Event{Node: "press", Message: "quiet", Severity: 499})
		s.Raise(opcuasim.Event{Node: "press", Message: "loud", Severity: 500})
		s.Raise(opcuasim.Event{Node: "press", Type: id.ExclusiveLimitAlarmType, Condition: "high", Message: "limit", Severity: 800, Limit: "High", Active: true, Retain: true})
		s.Raise(opcuasim.Event{Node: "press", Type: id.ExclusiveLimitAlarmType, Condition: "high", Message: "limit", Severity: 100, Acked: true})
		left := 1<<4 - 1
		s.Raise(opcuasim.Event{Node: "press", Type: id.AlarmConditionType, Condition: "last", Message: "last", Severity: 900})
		told(t, pushes, func(tag int, e *happened) bool {
			word := e.Message
			if e.Refresh {
				word += " again"
			}
			got[tag] = append(got[tag], word)
			if e.Message == "last" {
				left &^= 1 << tag
			}
			return left == 0
		})
	}
	take(pushes)
	d.Close()
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	take(d.Pushed())
	for tag, want := range [][]string{
		{"stands again", "server", "quiet", "loud", "limit", "limit", "last"},
		{"stands again", "quiet", "loud", "limit", "limit", "last"},
		{"stands again", "loud", "limit", "limit", "last"},
		{"stands again", "limit", "limit", "last"},
	} {
		if want = append(want, want...); !slices.Equal(got[tag], want) {
			t.Errorf("tag %d: %q\nwant %q", tag, got[tag], want)
		}
	}
}

// TestEventsOfAnotherMachine: what is told where a namespace index has come to mean another namespace is uncertain, as values are.
func TestEventsOfAnotherMachine(t *testing.T) {
	s := start(t, opcuasim.Options{Namespaces: []string{machineURI, "urn:more"}, Attribute: func(node string, a ua.AttributeID) any {
		if node == "ns=3;i=1" && a == ua.AttributeIDNodeClass {
			return int32(ua.NodeClassObjectType)
		}
		return nil
	}}, 1)
	s.AddNotifier("press")
	c := connection(s.Endpoint(), 10*time.Second, "ns=2;s=press", "i=2253", "i=2253")
	c.Devices[0].Options["namespaces"] = "2=urn:was 3=urn:gone"
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	eventTag(c, 0, nil)
	eventTag(c, 1, nil)
	eventTag(c, 2, map[string]string{"event_type": "ns=3;i=1"})
	_, pushes := subscribed(t, c)
	s.Raise(opcuasim.Event{Node: "press", Message: "whose?", Severity: 500})
	got := map[uint32]int{}
	next(t, pushes, func(p *drivers.Push) bool {
		for _, r := range p.Readings {
			got[r.Tag]++
			reason := map[uint32]string{0: `namespace 2 of its address was "urn:was" `, 2: `namespace 3 of its event_type was "urn:gone" `}[r.Tag]
			if want := reason == ""; want != (r.Quality == telemetry.Good) || !strings.HasPrefix(r.Reason, reason) {
				t.Errorf("tag %d: %v %q: %s", r.Tag, r.Quality, r.Reason, r.Value.Text)
			}
		}
		return got[0] > 1 && got[1] > 1
	})
}

// TestToldAgain: where the server does not mark the conditions that it tells again, they are known by the ids of their events.
func TestToldAgain(t *testing.T) {
	s := start(t, opcuasim.Options{UnmarkedRefresh: true}, 1)
	c := ofPress(s, "i=2253")
	_, pushes := subscribed(t, c)
	got := [2][]string{}
	take := func(all ...string) { // by both tags
		left := 2 * len(all)
		told(t, pushes, func(tag int, e *happened) bool {
			word := e.Message
			if e.Refresh {
				word += " again"
			}
			if got[tag] = append(got[tag], word); slices.Contains(all, word) {
				left--
			}
			return left == 0
		})
	}
	begun := 0
	told(t, pushes, func(tag int, e *happened) bool { begun++; return begun == 2 })
	raise := func(name, message string, active bool) {
		s.Raise(opcuasim.Event{Node: "press", Type: id.AlarmConditionType, Condition: name, Message: message, Severity: 500, Active: active, Retain: active, Time: time.Now().Add(time.Hour)})
	}
	raise("a", "a1", true)
	raise("b", "b1", true)
	raise("a", "a2", true)
	take("a2")
	s.Raise(opcuasim.Event{Type: id.RefreshRequiredEventType})
	take("a2 again", "b1 again")
	raise("b", "b2", false)
	raise("b", "b3", true)
	raise("c", "c1", false)
	take("c1")
	for tag := range got {
		slices.Sort(got[tag])
		if want := []string{"a1", "a2", "a2 again", "b1", "b1 again", "b2", "b3", "c1"}; !slices.Equal(got[tag], want) {
			t.Errorf("tag %d: %q\nwant %q", tag, got[tag], want)
		}
	}
}

// TestNewBranch: a branch made after a server has told its conditions is news, though it has the time of the state that it keeps; of a node without marks of that it is not to be known.
func TestNewBranch(t *testing.T) {
	for _, unmarked := range []bool{false, true} {
		s := start(t, opcuasim.Options{UnmarkedRefresh: unmarked}, 1)
		c := ofPress(s, "i=2253")
		hot := opcuasim.Event{Node: "press", Type: id.AlarmConditionType, Condition: "hot", Message: "stands", Severity: 500, Active: true, Retain: true, Time: time.Now().Add(-time.Hour)}
		s.Raise(hot)
		_, pushes := subscribed(t, c)
		again := map[string]bool{}
		both := func(of int, e *happened) bool {
			again[fmt.Sprint(e.Message, of)] = e.Refresh
			_, first := again[e.Message+"0"]
			_, second := again[e.Message+"1"]
			return e.Message != "" && first && second
		}
		told(t, pushes, both)
		hot.Message, hot.Odd = "branch", map[string]any{"BranchId": ua.NewStringNodeID(2, "b")}
		s.Raise(hot)
		told(t, pushes, both)
		if !again["stands0"] || !again["stands1"] || again["branch0"] != unmarked || again["branch1"] {
			t.Errorf("unmarked %v: told again: %v", unmarked, again)
		}
	}
}

// TestLiveBetweenMarks: what happens while a server tells its conditions again is not told again, though it stands between the marks of that.
func TestLiveBetweenMarks(t *testing.T) {
	yes, no := true, false
	var e event
	const listens = 100
	for i, c := range []struct {
		h              happened
		at             int64
		marked, before bool
		want           bool
	}{
		{happened{Event: "01", Condition: "a", Active: &yes}, 50, true, true, true},
		{happened{Event: "02", Condition: "a", Active: &yes}, 150, true, false, false}, // another one, and later
		{happened{Event: "02", Condition: "a", Active: &yes}, 150, true, false, true},
		{happened{Event: "02", Condition: "a", Active: &yes}, 150, false, false, true}, // the same, without marks
		{happened{Event: "03", Condition: "a", Active: &yes}, 160, false, false, false},
		{happened{Event: "04", Condition: "a", Branch: "b", Active: &yes}, 90, false, true, true},
		{happened{Event: "05", Condition: "b", Active: &yes}, 150, true, false, true}, // nothing was told of it
		{happened{Event: "06"}, 50, true, true, false},                                // no condition
		{happened{Active: &yes, Condition: "n"}, 150, false, false, false},
		{happened{Active: &yes, Condition: "n"}, 160, false, false, false}, // without ids
		{happened{Event: "03", Condition: "a", Active: &no, Retain: &no}, 170, false, false, true},
		{happened{Event: "03", Condition: "a", Active: &yes}, 180, false, false, false}, // over: not followed
	} {
		if got := e.again(&c.h, c.at, c.marked, c.before, listens); got != c.want {
			t.Errorf("%d: %v, want %v", i, got, c.want)
		}
	}
	for i := range 2 * maxOpen {
		e.again(&happened{Event: "07", Condition: fmt.Sprint(i), Active: &yes}, 200, false, false, listens)
	}
	if len(e.last) != maxOpen {
		t.Errorf("%d are followed", len(e.last))
	}
}

// TestTimesOfEvents: what is no time of a value is none of an event either.
func TestTimesOfEvents(t *testing.T) {
	s := start(t, opcuasim.Options{}, 1)
	_, pushes := subscribed(t, ofPress(s))
	day := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for message, at := range map[string]any{"1601": time.Time{}, "null": nil, "day": day, "1970": time.Unix(0, 0)} {
		s.Raise(opcuasim.Event{Node: "press", Message: message, Severity: 500, Odd: map[string]any{"Time": at}})
	}
	left := 4
	next(t, pushes, func(p *drivers.Push) bool {
		for _, r := range p.Readings {
			is := func(what string) bool { return strings.Contains(r.Value.Text, what) }
			switch {
			case is(`"subscribed"`):
				continue
			case is(`"message":"day"`):
				if r.Time != day.UnixMicro() || !is(`"time":"2026-11-27T12:00:00Z"`) {
					t.Errorf("%d: %s", r.Time, r.Value.Text)
				}
			case is(`"message":"1970"`): // a clock that was never set: 0 would be none
				if r.Time != 1 || !is(`"time":"1970-01-01T00:00:00Z"`) {
					t.Errorf("%d: %s", r.Time, r.Value.Text)
				}
			case r.Time != 0 || is(`"time"`) || r.Quality != telemetry.Good:
				t.Errorf("%d: %s", r.Time, r.Value.Text)
			}
			left--
		}
		return left == 0
	})
}

// TestTicksOfEvents: so are the extremes that the library cannot write, by their 100 ns ticks since 1601.
func TestTicksOfEvents(t *testing.T) {
	const y9999 = 2650467743990000000
	for ticks, want := range map[uint64]int64{0: 0, 1: micros(firstTick + 1), y9999: 0, 1<<63 - 1: 0, 1 << 63: 0, 116444736000000000: 1, 116444736000000009: 1, 116444735999999999: -1, y9999 - 10: (lastTick - 10) / 10, 116444736000000010: 1} {
		data := binary.LittleEndian.AppendUint64([]byte{3, 0, 0, 0, 0, 0, 13}, ticks)
		var e happened
		r := newReader(data)
		_, at, err := new(feed).happened(&r, &e)
		if err != nil || at != want || (at == 0) != (e.Time == "") {
			t.Errorf("%d ticks: %d, %q, %v; want %d", ticks, at, e.Time, err, want)
		}
	}
}

// TestLastingIds: node ids in events name their namespaces, and so stay the same when the server numbers those anew.
func TestLastingIds(t *testing.T) {
	s := start(t, opcuasim.Options{Namespaces: []string{machineURI, "urn:m;1"}}, 1)
	s.AddNotifier("press")
	c := connection(s.Endpoint(), 10*time.Second, "nsu="+machineURI+";s=press")
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	eventTag(c, 0, nil)
	d, pushes := subscribed(t, c)
	for i, spaces := range [][]string{{machineURI, "urn:m;1"}, {"urn:m;1", machineURI}} {
		if i > 0 {
			d.Close()
			s.SetNamespaces(spaces...)
			if err := d.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
				t.Fatal(ok, err)
			}
			pushes = d.Pushed()
		}
		own := uint16(2 + slices.Index(spaces, machineURI))
		odd := map[string]any{"EventType": ua.NewNumericNodeID(5-own, 7), "BranchId": ua.NewStringNodeID(99, "b"), "": ua.NewStringNodeID(own, "c")}
		s.Raise(opcuasim.Event{Node: "press", Type: id.AlarmConditionType, Condition: "hot", Severity: 500, Odd: odd})
		told(t, pushes, func(_ int, e *happened) bool {
			if !e.Subscribed && (e.Type != "nsu=urn:m%3B1;i=7" || e.Branch != "ns=99;s=b" || e.Condition != "nsu="+machineURI+";s=c") {
				t.Errorf("%d: %+v", i, e)
			}
			return !e.Subscribed
		})
	}
}
