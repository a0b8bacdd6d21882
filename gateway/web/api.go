package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"millrace/buffer"
	"millrace/drivers/telemetry"
	"millrace/gateway/values"
)

// Gateway is what can be asked of a running gateway. Package gateway implements it; its methods are called from the
// goroutines of requests.
type Gateway interface {
	// Snapshot returns the state of the whole gateway at this moment.
	Snapshot() *Snapshot
	// Stalled returns the gateway's name and what takes longer than it may. Unlike Snapshot it never waits.
	Stalled() (gateway string, list []Stall)
	// Acts counts what people have had done, such as a reload: no snapshot from before the last is shown, at either address.
	Acts() *atomic.Uint64
	// Buffer returns the store that the gateway runs on.
	Buffer() *buffer.Buffer
	// Values returns the last readings of all tags.
	Values() *values.Table
	// Reload loads the config again and puts it into force, or says why not.
	Reload(ctx context.Context) (*Change, error)
	// Ack notes that a person, who, has seen what was lost and which devices have changed, and returns what that was.
	Ack(who string) (Seen, error)
	// ResetLearned has forgotten what was learned of a device, because a person, who, wants it, and returns what that was, as
	// lines of a config; tags of its rules that are gone are dropped, and counted in a comment among them.
	ResetLearned(device, who string) ([]string, error)
	// Write asks for a value to be written to equipment and waits for the answer.
	Write(ctx context.Context, device, tag, value string) (*Written, error)
	// Call asks for a method of equipment to be called and waits for the answer.
	Call(ctx context.Context, device, method string, arguments []string) (*Called, error)
	// Ask passes a request that only reads on to the line of a url, between two polls; an empty one only asks for the line.
	Ask(ctx context.Context, driver, url string, request []byte) (*Asked, error)
	// BeginReading tells the watchdog that the store is read for somebody, for what: each step of it, and its end, must be told.
	BeginReading(what string) (step, end func())
	// Trace shows what goes over the line of a device from now on, until ctx ends or the line is exchanged by a reload: then the
	// channel is closed. Who does not keep up loses some, and is told how many.
	Trace(ctx context.Context, device string) (<-chan Exchange, error)
}

// Exchange is one request over a line and what came of it.
type Exchange struct {
	At      int64  `json:"at"`   // µs since 1970
	Took    int64  `json:"took"` // µs
	Request []byte `json:"request"`
	Answer  []byte `json:"answer,omitempty"`
	Reason  string `json:"reason,omitempty"` // why there is no answer
	Raw     []byte `json:"raw,omitempty"`    // what came instead
	Lost    int    `json:"lost,omitempty"`   // exchanges before this one that are not shown
}

// Asked is what came of a request that was passed on.
type Asked struct {
	Line   bool   `json:"line"`             // the gateway has a line with this url; if not, nothing was asked
	Answer []byte `json:"answer,omitempty"` // the device's, as its protocol has it
	Reason string `json:"reason,omitempty"` // why there is none: this device did not answer
}

// Written is the answer to a write that was done.
type Written struct {
	Device  string  `json:"device"`
	Tag     string  `json:"tag"`
	Value   string  `json:"value"`   // as it was asked for
	Seconds float64 `json:"seconds"` // until the device confirmed
}

// Called is the answer to a call of a method that was done.
type Called struct {
	Device  string   `json:"device"`
	Method  string   `json:"method"`
	Results []Result `json:"results"` // what the method gave, in its order
	Seconds float64  `json:"seconds"` // until the device answered
}

// Result is one value that a method gave. The texts are the device's.
type Result struct {
	Name   string `json:"name"`  // "" where the device does not say one
	Type   string `json:"type"`  // the driver's word
	Value  any    `json:"value"` // null when there is none; a Client gives a number as json.Number
	Reason string `json:"reason,omitempty"`
}

// NewResult returns a value that a method gave as the API tells it.
func NewResult(name, typ, reason string, v telemetry.Value) Result {
	return Result{Name: name, Type: typ, Value: plain(v), Reason: reason}
}

// Value is one tag with its last reading, as the API tells it.
type Value struct {
	Device  string  `json:"device"`
	Group   string  `json:"group"`
	Tag     string  `json:"tag"` // "" = the group has none, because its rule selects nothing
	Unit    string  `json:"unit,omitempty"`
	Value   any     `json:"value"`   // null when there is none; a Client gives a number as json.Number
	Quality string  `json:"quality"` // good, uncertain, bad; "" = not read yet
	Reason  string  `json:"reason,omitempty"`
	At      int64   `json:"at"` // of the poll by the gateway's clock, ms since 1970; 0 = not read yet
	Age     float64 `json:"age_seconds"`
	Source  int64   `json:"source_time,omitempty"` // the device's, ms since 1970, where it differs
	Every   float64 `json:"interval_seconds"`
	Lost    uint64  `json:"lost,omitempty"`    // readings that the device pushed in vain: known to be missing, until ten minutes after LostAt
	LostAt  int64   `json:"lost_at,omitempty"` // when the last of them was noticed, ms since 1970
	Range   Range   `json:"range,omitzero"`    // what the device says the values are normally within, after scaling
}

// Range is from low to high; the zero Range is none.
type Range struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// valueOf describes an entry at a moment.
func valueOf(e *values.Entry, now time.Time) Value {
	more := e.Tag.Details()
	v := Value{Device: e.Device, Group: e.Group, Tag: e.Tag.Name, Unit: more.Unit, Range: Range(more.Range), Every: e.Interval.Seconds()}
	if e.Lost > 0 && now.Sub(time.UnixMicro(e.LostAt)).Abs() < values.LostFor { // Abs: the clock may have been set back
		v.Lost, v.LostAt = e.Lost, e.LostAt/1000
	}
	if e.At == 0 {
		return v
	}
	r := &e.Reading
	v.At, v.Quality, v.Reason = e.At/1000, r.Quality.String(), r.Reason
	v.Age = max(now.Sub(time.UnixMicro(e.At)).Seconds(), 0)
	if r.Time/1000 != v.At {
		v.Source = r.Time / 1000
	}
	v.Value = plain(r.Value)
	return v
}

// plain is a value as JSON has it. What JSON cannot hold is a text.
func plain(v telemetry.Value) any {
	switch v.Kind {
	case telemetry.KindBool:
		return v.Bits != 0
	case telemetry.KindInt:
		return int64(v.Bits)
	case telemetry.KindUint:
		return v.Bits
	case telemetry.KindFloat32, telemetry.KindFloat64:
		return number(v)
	case telemetry.KindString:
		return v.Text
	case telemetry.KindTime:
		return v.AsTime().Format(time.RFC3339Nano)
	case telemetry.KindArray:
		list := []any{}
		v.Elements(func(e telemetry.Value) bool { list = append(list, plain(e)); return true })
		return list
	}
	return nil
}

// wantOf reads which values a request wants.
func wantOf(r *http.Request) values.Want {
	return values.Want{Device: r.FormValue("device"), Tag: r.FormValue("tag"), Bad: flag(r, "bad")}
}

// serveValues answers with a JSON list of values, or with watch=1 with one value a line as they change, until either side
// has enough.
func (s *views) serveValues(w http.ResponseWriter, r *http.Request) {
	want := wantOf(r)
	if err := s.unknown(want.Device, want.Tag); err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	if flag(r, "watch") {
		s.watchValues(w, r, want)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(w, 32<<10)
	sep := byte('[')
	s.eachValue(want, func(v *Value) bool {
		_ = out.WriteByte(sep)
		sep = ','
		b, err := json.Marshal(v)
		if err == nil {
			_, err = out.Write(b)
		}
		return err == nil
	})
	if sep == '[' {
		_ = out.WriteByte('[')
	}
	_, _ = out.WriteString("]\n")
	_ = out.Flush() // a reader that went away is no concern of ours
}

// eachValue calls yield with each value that is wanted, and with each group without tags, until it returns false.
func (s *views) eachValue(want values.Want, yield func(*Value) bool) {
	now, none := time.Now(), untaggedOf(s.snapshot(), want)
	all := func(list []Value) bool {
		for i := range list {
			if !yield(&list[i]) {
				return false
			}
		}
		return true
	}
	more := true
	s.g.Values().Each(want.Device, want.Tag, func(e *values.Entry) bool {
		if more = all(none.before(e.Device, e.Group)); more && !(want.Bad && (e.At == 0 || e.Reading.Quality == telemetry.Good)) {
			v := valueOf(e, now)
			more = yield(&v)
		}
		return more
	})
	if more {
		all(none)
	}
}

// maxSilence is how long a watch says nothing: then an empty line shows that it lives.
const maxSilence = 10 * time.Second

// watch takes the place of a watch, or answers that there is none. Who got it gives it back to s.watching.
func (s *views) watch(w http.ResponseWriter) bool {
	select {
	case s.watching <- struct{}{}:
		return true
	default:
		fail(w, http.StatusServiceUnavailable, fmt.Errorf("%d others watch or trace; end one of them, or ask for values without watch", cap(s.watching)))
		return false
	}
}

func (s *views) watchValues(w http.ResponseWriter, r *http.Request, want values.Want) {
	if !s.watch(w) {
		return
	}
	defer func() { <-s.watching }()
	w.Header().Set("Content-Type", "application/x-ndjson")
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	changes := s.g.Values().Watch(r.Context(), want)
	alive := time.NewTicker(maxSilence)
	defer alive.Stop()
	for {
		_ = rc.SetWriteDeadline(time.Now().Add(stall))
		if rc.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case c, open := <-changes:
			if !open {
				return
			}
			now := time.Now()
			for i := range c.Entries {
				if enc.Encode(valueOf(&c.Entries[i], now)) != nil {
					return
				}
			}
		case <-alive.C:
			if _, err := w.Write([]byte("\n")); err != nil {
				return
			}
		}
	}
}

func (s *views) serveStore(w http.ResponseWriter, _ *http.Request) {
	snap := s.snapshot()
	s.within(w, func() (any, error) {
		st, err := statusOf(s.g.Buffer())
		if err == nil {
			st.Running, st.Gateway, st.Version, st.States = true, snap.Gateway, snap.Version, snap.States
		}
		return st, err
	})
}

func (s *views) serveQuarantine(w http.ResponseWriter, _ *http.Request) {
	s.within(w, func() (any, error) {
		q, err := s.g.Buffer().Quarantine()
		return append([]*buffer.Quarantined{}, q...), err // [] when there are none
	})
}

// errReadOnly is the answer to a change that is asked for at the page's address.
var errReadOnly = errors.New("this address only shows; changes are asked for with the millrace command on the same machine")

// number is a float as JSON has it: what is none is a text.
func number(v telemetry.Value) any {
	f, _ := v.Float()
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Sprint(f)
	}
	if v.Kind == telemetry.KindFloat32 {
		return float32(f)
	}
	return f
}
