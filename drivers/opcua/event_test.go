package opcua

import (
	"context"
	"encoding/json"
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

// eventTag makes the n-th tag of a connection one of events.
func eventTag(c drivers.Connection, n int, options map[string]string) {
	t := &c.Devices[0].Groups[0].Tags[n]
	t.Type, t.Options = eventType, options
}

// ofPress is a device with a tag of the events of the simulated server's notifier press, and one of those at each further address.
func ofPress(s *opcuasim.Server, more ...string) drivers.Connection {
	s.AddNotifier("press")
	c := connection(s.Endpoint(), 10*time.Second, append([]string{"ns=2;s=press"}, more...)...)
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	for i := range 1 + len(more) {
		eventTag(c, i, nil)
	}
	return c
}

// told returns the events that are pushed until enough says so.
func told(t *testing.T, pushes <-chan drivers.Push, enough func(tag int, e *happened) bool) {
	t.Helper()
	next(t, pushes, func(p *drivers.Push) bool {
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		for i := range p.Readings {
			r := &p.Readings[i]
			if r.Quality != telemetry.Good || r.Value.Kind != telemetry.KindString {
				continue // the value of a variable, or not yet
			}
			var e happened
			if err := json.Unmarshal([]byte(r.Value.Text), &e); err != nil {
				t.Fatalf("%q: %v", r.Value.Text, err)
			}
			if !e.Subscribed && (e.Type == "" || e.Event == "" || r.Time == 0) {
				t.Fatalf("an event without type, id or time: %+v at %d", e, r.Time)
			}
			if enough(int(r.Tag), &e) {
				return true
			}
		}
		return false
	})
}

// TestNodeOPCUAEvents takes the events and alarms of node-opcua: none is missing, filters hold, and after a reconnect the alarm that is active is
// told again.
func TestNodeOPCUAEvents(t *testing.T) {
	t.Parallel()
	url := nodeOPCUA(t, "alarms")
	c := connection(url, 10*time.Second, "/Objects/Server", "ns=1;s=Interop.Tank", "nsu=urn:nobody;s=x", "i=2253", "ns=1;s=Interop.Double", "ns=1;s=Interop.Tank")
	c.Devices[0].Options = map[string]string{"security_policy": "none"}
	eventTag(c, 0, nil)
	eventTag(c, 1, map[string]string{"min_severity": "400"})
	eventTag(c, 2, nil)
	eventTag(c, 3, map[string]string{"event_type": "i=2915", "min_severity": "1"})
	eventTag(c, 5, map[string]string{"event_type": "i=2915"})
	c.Devices[0].Groups[0].Interval = 100 * time.Millisecond
	d, pushes := subscribed(t, c)
	var begun, loud, alarms, ended int
	var turns []int
	told(t, pushes, func(tag int, e *happened) bool {
		turn := 0
		fmt.Sscanf(e.Message, "turn %d", &turn)
		switch {
		case e.Subscribed:
			begun++
		case tag == 0 && turn > 0:
			turns = append(turns, turn)
		case tag == 1:
			if loud++; e.Active != nil && !*e.Active {
				ended++
			}
			if e.Severity != nil && *e.Severity > 0 && *e.Severity < 400 {
				t.Errorf("tag of severity 400: %+v", e)
			}
		case tag == 3:
			if alarms++; e.Type != "ExclusiveLimitAlarmType" || e.Active == nil || e.Acked == nil || *e.Acked && *e.Active || e.Name != "Pressure" || *e.Active != (e.Limit == "High") && e.Branch == "" {
				text, _ := json.Marshal(e)
				t.Errorf("alarm %s", text)
			}
		}
		return len(turns) >= 20 && loud > 5 && alarms > 5 && ended > 1
	})
	for i := range turns {
		if turns[i] != turns[0]+i {
			t.Fatalf("turns %v", turns)
		}
	}
	if begun != 4 {
		t.Errorf("%d tags say that events come from now on, want 4", begun)
	}
	d.Close()
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
		t.Fatalf("Subscribe: %v, %v", ok, err)
	}
	again := map[int]bool{}
	told(t, d.Pushed(), func(tag int, e *happened) bool {
		if e.Refresh && e.Name == "Pressure" {
			again[tag] = true
		}
		return again[0] && again[3] && again[5]
	})
}

// TestEventMistakes has tags of events that cannot be.
func TestEventMistakes(t *testing.T) {
	for _, c := range []struct {
		options map[string]string
		kind    string
		device  map[string]string
		want    string
	}{
		{map[string]string{"min_severity": "1001"}, "event", nil, `min_severity "1001" is no severity; use 1`},
		{map[string]string{"event_type": "alarm"}, "event", nil, `event_type "alarm": `},
		{map[string]string{"field": "a"}, "event", nil, "field is of values"},
		{map[string]string{"min_severity": "5"}, "uint16", nil, "min_severity is of events"},
		{nil, "event", map[string]string{"mode": "read"}, "events come by subscription only"},
	} {
		conn := connection("opc.tcp://h", time.Second, "i=2253")
		conn.Devices[0].Options = c.device
		conn.Devices[0].Groups[0].Tags[0].Type, conn.Devices[0].Groups[0].Tags[0].Options = c.kind, c.options
		if _, err := newDriver(conn); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	conn := connection("opc.tcp://h", time.Second, slices.Repeat([]string{"i=2253"}, maxEventTags+1)...)
	for i := range conn.Devices[0].Groups[0].Tags {
		eventTag(conn, i, nil)
	}
	if _, err := newDriver(conn); err == nil || !strings.Contains(err.Error(), "more than 16 tags of events") {
		t.Error(err)
	}
}

// eventList is an EventNotificationList of two events, encoded.
func eventList(t testing.TB) []byte {
	fields := func(kind uint32, message string) []*ua.Variant {
		all := make([]*ua.Variant, len(eventFields))
		for i := range all {
			all[i] = ua.MustVariant(nil)
		}
		all[0], all[1], all[2] = ua.MustVariant(ua.NewNumericNodeID(0, kind)), ua.MustVariant([]byte{1, 2}), ua.MustVariant(noon)
		all[4], all[5], all[14] = ua.MustVariant(uint16(700)), ua.MustVariant(ua.NewLocalizedText(message)), ua.MustVariant(true)
		return all
	}
	data, err := ua.Encode(&ua.EventNotificationList{Events: []*ua.EventFieldList{
		{ClientHandle: 0, EventFields: fields(id.RefreshStartEventType, "")}, {ClientHandle: 0, EventFields: fields(id.AlarmConditionType, "hot")},
		{ClientHandle: 0, EventFields: fields(id.RefreshEndEventType, "")}, {ClientHandle: 0, EventFields: fields(id.EventQueueOverflowEventType, "")},
		{ClientHandle: 0, EventFields: fields(4711, "more")}}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// takeEvents has a feed take a list.
func takeEvents(data []byte) (all []drivers.Push, m *member, err error) {
	g := &group{tags: []tag{{event: &event{}}, {}}}
	f := &feed{subs: map[uint32]*subscription{}, pushes: make(chan drivers.Push, 1<<12), ctx: context.Background()}
	s := &subscription{}
	m = s.add(drivers.Ref{}, g, 0)
	f.subs[1] = s
	r := newReader(data)
	err = f.events(s, &r)
	close(f.pushes)
	for p := range f.pushes {
		all = append(all, p)
	}
	return all, m, err
}

func TestEventsOfAList(t *testing.T) {
	all, s, err := takeEvents(eventList(t))
	if err != nil || len(all) != 1 || len(all[0].Readings) != 2 || all[0].Lost != 1 || s.refreshing[0] {
		t.Fatalf("%+v, %v", all, err)
	}
	const time = `"time":"2026-11-27T12:00:00Z"`
	for i, want := range []string{
		`{"type":"AlarmConditionType","event":"0102",` + time + `,"severity":700,"message":"hot","active":true,"refresh":true}`,
		`{"type":"i=4711","event":"0102",` + time + `,"severity":700,"message":"more","active":true}`,
	} {
		if r := all[0].Readings[i]; r.Value.Text != want || r.Time != noon.UnixMicro() {
			t.Errorf("%s at %d, want %s", r.Value.Text, r.Time, want)
		}
	}
}

// TestSeverity: a condition that was told for its severity is told until it is over, however quiet its end is.
func TestSeverity(t *testing.T) {
	yes, no := true, false
	of := func(n uint64) *uint64 { return &n }
	e := &event{severity: 500}
	for i, c := range []struct {
		h    happened
		want bool
	}{
		{happened{Severity: of(499)}, false},
		{happened{Severity: of(0)}, true}, // which is none
		{happened{Severity: of(500)}, true},
		{happened{Severity: of(100), Condition: "a", Active: &yes, Retain: &yes}, false}, // was never loud
		{happened{Severity: of(100), Condition: "a", Active: &no, Retain: &no}, false},
		{happened{Condition: "a", Active: &no, Retain: &yes}, true},                      // without a severity
		{happened{Severity: of(100), Condition: "a", Active: &yes, Retain: &yes}, false}, // which does not follow it
		{happened{Severity: of(700), Condition: "a", Active: &yes, Retain: &yes}, true},
		{happened{Severity: of(1), Condition: "b", Active: &no, Retain: &yes}, false},
		{happened{Severity: of(1), Condition: "a", Active: &no, Retain: &yes}, true}, // over, not seen to
		{happened{Severity: of(1), Condition: "a", Active: &no, Retain: &no}, true},
		{happened{Severity: of(1), Condition: "a", Active: &no, Retain: &no}, false},
	} {
		if got := e.passes(&c.h); got != c.want {
			t.Errorf("%d: %v, want %v", i, got, c.want)
		}
	}
	if len(e.open) > 0 {
		t.Errorf("%v stay open", e.open)
	}
	for i := range 2 * maxOpen {
		e.passes(&happened{Severity: of(700), Condition: fmt.Sprint(i), Active: &yes})
	}
	if len(e.open) != maxOpen || !e.passes(&happened{Severity: of(1), Condition: fmt.Sprint(maxOpen + 1), Active: &no}) {
		t.Errorf("%d are followed; the end of another one does not pass", len(e.open))
	}
}

// FuzzEvents takes any bytes for a list of events: nothing panics, and what is told is JSON of a bounded size.
func FuzzEvents(f *testing.F) {
	f.Add(eventList(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, _, _ := takeEvents(data)
		for _, p := range all {
			for i := range p.Readings {
				if r := &p.Readings[i]; r.Quality == telemetry.Good && (!json.Valid([]byte(r.Value.Text)) || len(r.Value.Text) > maxText) || r.Tag != 0 {
					t.Fatalf("reading %+v", r)
				}
			}
		}
	})
}
