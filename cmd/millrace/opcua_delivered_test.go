package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/web"
)

const pressConfig = `devices:
  - name: press
    driver: opcua
    url: %s
    security_policy: none
    groups:
      - name: all
        interval: 50ms
        report: on-change
        heartbeat: 200ms
        tags:
          - {name: beat, address: "ns=2;s=beat"}
          - {name: alarms, address: "ns=2;s=press", type: event}
          - {name: none, address: "ns=2;s=none", type: event}
`

// delivery is what a broker got of the press, each message once.
type delivery struct {
	mu           sync.Mutex
	had          map[string]bool
	order        []uint64 // sequence numbers
	values, bad  int      // messages of values, and of events with the tag that is not there
	begun, wrong int
	events       []string // their messages
}

type deliveredEvent struct {
	Tag        string
	TS         int64
	Event      *struct{ Type, Source, Message, Time string }
	Subscribed bool
}

func (d *delivery) take(m brokersim.Message) {
	var msg struct {
		Kind   string
		Epoch  string
		Seq    uint64
		Values map[string]any
		Bad    map[string]string
		Events []deliveredEvent
		Gap    any
	}
	err := json.Unmarshal(m.Payload, &msg)
	d.mu.Lock()
	defer d.mu.Unlock()
	id := fmt.Sprint(msg.Epoch, msg.Seq)
	if d.had[id] || msg.Gap != nil {
		return
	}
	d.had[id] = true
	d.order = append(d.order, msg.Seq)
	_, known := msg.Values["alarms"]
	switch {
	case err != nil, msg.Kind == "event" && len(msg.Values) > 0, known, msg.Kind == "" && msg.Bad["none"] != "", !strings.HasSuffix(m.Topic, "/press/all"):
		d.wrong++
	case msg.Kind == "":
		d.values++
	}
	if strings.HasPrefix(msg.Bad["none"], "BadNodeIdUnknown") {
		d.bad++
	}
	for _, e := range msg.Events {
		switch {
		case e.Subscribed:
			d.begun++
		case e.Event != nil && e.Tag == "alarms" && e.Event.Type == "BaseEventType" && sameTime(e.TS, e.Event.Time):
			d.events = append(d.events, e.Event.Message)
		default:
			d.wrong++
		}
	}
}

func sameTime(ms int64, text string) bool {
	at, err := time.Parse(time.RFC3339Nano, text)
	return err == nil && at.UnixMilli() == ms
}

// wait waits until enough says so of what has come.
func (d *delivery) wait(t *testing.T, enough func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		d.mu.Lock()
		done := enough()
		d.mu.Unlock()
		switch {
		case done:
			return
		case time.Now().After(end):
			t.Fatalf("%+v", d)
		}
	}
}

// TestEventsAreDelivered: a group of values and events gives messages of either kind, and each event arrives once, in order, also by way of the store.
func TestEventsAreDelivered(t *testing.T) {
	s := toolServerWith(t, opcuasim.Options{})
	var beats atomic.Int32
	s.AddVariable("beat", func() any { return beats.Add(1) / 10 })
	s.AddNotifier("press")
	d := &delivery{had: map[string]bool{}}
	broker, file, dir, stop := delivering(t, d.take, fmt.Sprintf(pressConfig, s.Endpoint()))
	defer broker.Stop()
	d.wait(t, func() bool { return d.begun == 1 && d.bad > 0 && d.values > 0 })
	var want []string
	raise := func() {
		e := opcuasim.Event{Node: "press", Source: "Press", Message: fmt.Sprintf(`part "%d"`, len(want)), Severity: 100}
		want = append(want, e.Message)
		s.Raise(e)
		if len(want)%10 == 0 {
			s.Raise(opcuasim.Event{Node: "press", Source: "Press", Message: "the same", Severity: 100})
			want = append(want, "the same")
			time.Sleep(30 * time.Millisecond)
		}
	}
	for len(want) < 100 {
		raise()
	}
	values := 0
	d.wait(t, func() bool { values = d.values; return len(d.events) >= len(want) })
	d.wait(t, func() bool { return d.values > values+5 }) // of these, heartbeats: none is of an event
	until(t, `""message"":""the same""`, "values", "press/alarms", "-o", "csv", "--config", file)
	until(t, "BadNodeIdUnknown", "values", "press/none", "-o", "csv", "--config", file)
	balanced(t, dir, "press")
	d.mu.Lock()
	if !slices.Equal(d.events, want) || d.begun != 1 || d.wrong > 0 || !slices.IsSorted(d.order) {
		t.Errorf("%+v\nwant %q", d, want)
	}
	d.mu.Unlock()

	broker.Stop()
	for range 9 {
		raise()
	}
	last := want[len(want)-1]
	until(t, last, "values", "press/alarms", "-o", "json", "--config", file)
	until(t, `{"tag":"alarms",`, "buffer", "export", "--config", file)
	exported := until(t, fmt.Sprintf(`"message":%q`, last), "buffer", "export", "--config", file)
	for line := range strings.Lines(exported) {
		d.take(brokersim.Message{Topic: "export/press/all", Payload: []byte(line)})
	}
	if !slices.Equal(d.events, want) || d.wrong > 0 {
		t.Errorf("exported:\n%s", exported)
	}
	until(t, `""message"":""`+strings.ReplaceAll(last, `"`, `\""`)+`""`, "buffer", "export", "--format", "csv", "--config", file)
	stop()
}

// balanced waits until the ledger explains every reading of a device.
func balanced(t *testing.T, dir, device string) {
	t.Helper()
	c, err := web.Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		snap, err := c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(snap.Devices, func(d web.Device) bool { return d.Name == device })
		dev := &snap.Devices[i]
		off := int64(0)
		for k := range dev.Accounts {
			off += dev.Imbalance(&dev.Accounts[k])
		}
		if off == 0 && dev.Polled > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the ledger does not explain %d readings: %+v", off, dev)
		}
	}
}
