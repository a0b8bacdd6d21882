package drivertest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// full is a fake that is all that a driver can be: Subscriber, Writer, WriteTyper, Caller, Browser, Historian, Typed and Eventful.
type full struct {
	*fake
	pushes chan drivers.Push
	values map[int]telemetry.Value // written, by tag
}

func (f *full) Connect(ctx context.Context) error {
	if err := f.fake.Connect(ctx); err != nil {
		return err
	}
	f.pushes = make(chan drivers.Push, 8)
	f.lost = func() {
		if f.pushes != nil && f.fault != "channel left open" {
			close(f.pushes)
		}
		f.pushes = nil
	}
	return nil
}

func (f *full) Close() error {
	if f.lost != nil && f.fault != "channel open after close" {
		f.lost()
	}
	return f.fake.Close()
}

func (f *full) Pushed() <-chan drivers.Push {
	if f.fault == "no channel" {
		return nil
	}
	return f.pushes
}

func (f *full) Subscribe(ctx context.Context, g drivers.Ref) (bool, error) {
	if f.fault == "not subscribed" {
		return false, errors.New("too many subscriptions")
	}
	if ctx.Err() != nil && f.fault != "subscribes on" {
		return false, ctx.Err()
	}
	p := drivers.Push{Group: g}
	for i := range f.tags {
		p.Readings = append(p.Readings, telemetry.Reading{Tag: uint32(i), Value: telemetry.Int(1)})
	}
	switch f.fault {
	case "foreign group":
		p.Group.Device = 9
	case "foreign tag":
		p.Readings[0].Tag = 3
	case "tag never pushed":
		p.Readings = p.Readings[1:]
	case "push without a reason":
		p.Readings[0].Quality = telemetry.Bad
	case "negative loss":
		p.Lost = -1
	case "channel closed early":
		close(f.pushes)
		f.lost = func() {}
		return true, nil
	}
	f.pushes <- p
	return true, nil
}

func (f *full) Write(ctx context.Context, ws []drivers.Write) []error {
	errs := make([]error, len(ws))
	for i, w := range ws {
		switch {
		case (f.down || !f.open) && f.fault == "write into nothing":
		case (f.down || !f.open) && f.fault == "link not named":
			errs[i] = errors.New("no connection")
		case f.down || !f.open:
			errs[i] = fmt.Errorf("write: %w", drivers.ErrLink)
		case w.Tag == 2 && f.fault == "refusal is a lost link":
			errs[i] = drivers.ErrLink
		case w.Tag == 2 && f.fault == "refusal unsaid":
		case w.Tag == 2 || f.fault == "refusal costs the others":
			errs[i] = errors.New("read only")
		case f.fault == "not written":
		default:
			f.values[w.Tag] = w.Value
		}
	}
	if f.fault == "too few errors" {
		return errs[1:]
	}
	return errs
}

func (f *full) WriteType(ctx context.Context, g drivers.Ref, tag int) (telemetry.DataType, bool, error) {
	switch {
	case (f.down || !f.open) && f.fault != "type out of nothing":
		return telemetry.AnyType, false, drivers.ErrLink
	case f.fault == "type not said":
		return telemetry.AnyType, false, errors.New("no idea")
	case f.fault == "another type":
		return telemetry.StringType, false, nil
	}
	return telemetry.Int64Type, f.fault == "type of an array", nil
}

func (f *full) CheckMethod(m drivers.Method) error {
	if f.fault == "none may be called" || m.Node == "" && f.fault != "all may be called" {
		return errors.New("no method is named")
	}
	return nil
}

func (f *full) Call(ctx context.Context, m drivers.Method, give func([]drivers.Argument) ([]telemetry.Value, error)) ([]drivers.Result, error) {
	takes := []drivers.Argument{{Name: "n", Type: telemetry.Int64Type}}
	switch down := f.down || !f.open; {
	case down && f.fault == "call into nothing":
	case down && f.fault == "down unsaid":
		return nil, errors.New("no connection")
	case down && f.fault == "asks in vain":
		_, _ = give(takes)
		return nil, drivers.ErrLink
	case down, m.Node != "start" && f.fault == "missing is a lost link":
		return nil, drivers.ErrLink
	case m.Node != "start" && f.fault != "a method too many":
		return nil, errors.New("no such method")
	}
	switch f.fault {
	case "calls before":
		f.called++
	case "asks twice":
		_, _ = give(takes)
	case "takes nothing":
		takes = nil
	case "takes another type":
		takes[0].Type = telemetry.StringType
	}
	args, err := give(takes)
	switch {
	case err != nil && f.fault == "own words for a refusal":
		return nil, errors.New("refused")
	case err != nil:
		return nil, err
	case f.fault == "calls twice":
		f.called++
	}
	f.called++
	if f.fault == "gives nothing" {
		return nil, nil
	}
	return []drivers.Result{{Value: telemetry.Int(int64(args[0].Bits) + 1)}}, nil
}

func (f *full) Read(ctx context.Context, g drivers.Ref, dst []telemetry.Reading) ([]telemetry.Reading, error) {
	n := len(dst)
	dst, err := f.fake.Read(ctx, g, dst)
	if err == nil {
		for tag, v := range f.values {
			dst[n+tag].Value = v
		}
	}
	return dst, err
}

func (f *full) Browse(ctx context.Context, parent string) iter.Seq2[drivers.Node, error] {
	nodes := []drivers.Node{{Name: "machine", ID: "m"}, {Name: "a", Address: "a"}}
	if parent == "m" {
		nodes = []drivers.Node{{Name: "b", Address: "b"}, {Name: "back", ID: ""}, {Name: "up", ID: "m"}}
		nodes[1].ID = "m" // a circle
	}
	switch f.fault {
	case "node without a name":
		nodes[0].Name = ""
	case "node that leads nowhere":
		nodes[0].ID = ""
	case "nothing to browse":
		nodes = nil
	case "not found":
		nodes = nodes[1:]
	}
	return func(yield func(drivers.Node, error) bool) {
		if ctx.Err() != nil && f.fault != "browses on" {
			yield(drivers.Node{}, ctx.Err())
			return
		}
		if f.fault == "browse fails" {
			yield(drivers.Node{}, errors.New("no such service"))
			return
		}
		for _, n := range nodes {
			if !yield(n, nil) && f.fault != "yields on" {
				if f.fault == "break costs the link" {
					f.open = false
				}
				return
			}
		}
	}
}

func (f *full) Backfill(context.Context) (bool, time.Duration, time.Duration, error) {
	return true, 0, 0, nil
}

func (f *full) History(ctx context.Context, _ drivers.Ref, from, to int64, emit func([]telemetry.Reading) error) error {
	if ctx.Err() != nil && f.fault != "remembers on" {
		return ctx.Err()
	}
	if f.fault == "history fails" {
		return errors.New("no such service")
	}
	if f.fault == "no history" {
		return nil
	}
	for at := from; at < to; at += 10 {
		r := telemetry.Reading{Tag: uint32(at/10) % 3, Time: at, Value: telemetry.Int(at)}
		switch f.fault {
		case "before from":
			r.Time--
		case "at to":
			r.Time = to
		case "newest first":
			r.Time = to - 1 - (at - from)
		case "tag of another group":
			r.Tag = 3
		case "past without a reason":
			r.Quality = telemetry.Bad
		}
		if err := emit([]telemetry.Reading{r}); err != nil && f.fault != "emits on" {
			return err
		}
	}
	return nil
}

func (f *full) Events(drivers.Ref) []int {
	return map[string][]int{"event of no tag": {3}, "event twice": {2, 2}, "event is a number": {0}}[f.fault]
}

func (f *full) DataTypes(drivers.Ref) []telemetry.DataType {
	switch f.fault {
	case "too few types":
		return nil
	case "wrong type":
		return []telemetry.DataType{telemetry.Float32Type, telemetry.AnyType, telemetry.AnyType}
	}
	return []telemetry.DataType{telemetry.Int16Type, telemetry.Int16Type, telemetry.AnyType}
}

func fullSuite(p *plant) Suite {
	p.full = true
	s := suite(p)
	down := s.Down
	s.Down = func() {
		if down(); p.lost != nil {
			p.lost()
		}
	}
	s.Writes = []drivers.Write{{Tag: 0, Value: telemetry.Int(77)}}
	s.Refused = []drivers.Write{{Tag: 2, Value: telemetry.Int(78)}}
	s.Calls = &Calls{Method: drivers.Method{Node: "start"}, Args: []telemetry.Value{telemetry.Int(3)}, Results: []telemetry.Value{telemetry.Int(4)},
		Missing: drivers.Method{Node: "stop"}, Impossible: []drivers.Method{{}}, Seen: func() int { return p.called }}
	s.Browsable = []string{"a", "b"}
	s.HistoryFrom, s.HistoryTo = 100, 200
	s.AllocsPerReading = 0
	return s
}

func TestGoodFullDriverPasses(t *testing.T) { Run(t, fullSuite(&plant{})) }

// TestEachOptionalFaultIsSeen is TestEachFaultIsSeen for what a driver may be besides.
func TestEachOptionalFaultIsSeen(t *testing.T) {
	for want, faults := range map[string][]string{
		"subscribed groups are pushed until the link is lost": {"not subscribed", "no channel", "foreign group", "foreign tag", "tag never pushed",
			"push without a reason", "negative loss", "channel closed early", "channel left open", "channel open after close", "subscribes on"},
		"writes are confirmed or refused one by one": {"too few errors", "refusal unsaid", "refusal is a lost link", "refusal costs the others", "not written", "type not said", "another type", "type of an array"},
		"write without a link says so":               {"write into nothing", "link not named", "too few errors", "type out of nothing"},
		"methods are called once, with arguments that were given": {"calls before", "asks twice", "calls twice", "takes nothing", "takes another type", "gives nothing",
			"own words for a refusal", "a method too many", "missing is a lost link", "all may be called", "none may be called"},
		"call without a link says so":                    {"call into nothing", "down unsaid", "asks in vain"},
		"browse finds what is there and ends":            {"node without a name", "node that leads nowhere", "nothing to browse", "not found", "browses on", "browse fails", "yields on", "break costs the link"},
		"history is whole, in order and in its bounds":   {"history fails", "no history", "before from", "at to", "newest first", "tag of another group", "past without a reason", "emits on", "remembers on"},
		"data types are those of the readings":           {"too few types", "wrong type"},
		"tags of events are of the group, and no values": {"event of no tag", "event twice", "event is a number"},
	} {
		for _, fault := range faults {
			t.Run(fault, func(t *testing.T) {
				s := fullSuite(&plant{fault: fault})
				sees(t, &s, want)
			})
		}
	}
}

// TestWhatTheSuiteSaysMustBeThere: a driver that is no Writer or Historian does not pass for one.
func TestWhatTheSuiteSaysMustBeThere(t *testing.T) {
	p := &plant{}
	s := fullSuite(p)
	p.full = false
	for _, check := range []func(*Suite) error{checkWrite, checkWriteDown, checkCall, checkCallDown, checkHistory} {
		if check(&s) == nil {
			t.Error("a driver that cannot passes")
		}
	}
}

// TestLateIsSeen: a call that takes longer than Soon fails whatever it returns.
func TestLateIsSeen(t *testing.T) {
	s := Suite{Soon: time.Millisecond}
	if s.soon("Wait", func() error { time.Sleep(5 * time.Millisecond); return nil }) == nil {
		t.Error("not seen")
	}
}
