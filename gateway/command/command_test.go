package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// machine is a driver that remembers what was written to it.
type machine struct {
	drivers.Driver
	slow time.Duration
	err  error

	mu        sync.Mutex
	got       []string
	now, most int // calls at once
}

func (m *machine) Write(_ context.Context, ws []drivers.Write) []error {
	m.mu.Lock()
	m.now++
	m.most = max(m.most, m.now)
	m.mu.Unlock()
	time.Sleep(m.slow)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now--
	for _, w := range ws {
		m.got = append(m.got, fmt.Sprintf("%v/%d kind %d bits %d %q", w.Group, w.Tag, w.Value.Kind, w.Value.Bits, w.Value.Text))
	}
	return []error{m.err}
}

// deaf is a driver that does not write.
type deaf struct{ drivers.Driver }

func do(d drivers.Driver) func(context.Context, func(drivers.Driver) error) error {
	var mu sync.Mutex
	return func(_ context.Context, job func(drivers.Driver) error) error {
		mu.Lock()
		defer mu.Unlock()
		return job(d)
	}
}

// allowBool lets a bool be written as often as a test wants.
func allowBool(device, tag string, do func(context.Context, func(drivers.Driver) error) error) Target {
	return Target{Rule: Rule{Device: device, Tag: tag, Count: 1000, Per: time.Second}, Type: telemetry.BoolType, Do: do}
}

func TestWrite(t *testing.T) {
	rule := Rule{Device: "press", Tag: "speed", Min: 0, Max: 100, Ranged: true, Count: 1, Per: time.Second}
	for _, c := range []struct {
		name, value string
		typ         telemetry.DataType
		tag         telemetry.Tag
		rule        func(*Rule)
		want        string // what the device got, or part of the error
		err         error
	}{
		{"whole", "42", telemetry.Uint16Type, telemetry.Tag{}, nil, "{0 1}/2 kind 3 bits 42", nil},
		{"scaled", "4.2", telemetry.Int16Type, telemetry.Tag{Scale: 0.1}, nil, "kind 2 bits 42", nil},
		{"scaled with offset", "50", telemetry.Int16Type, telemetry.Tag{Scale: 2, Offset: 10}, nil, "kind 2 bits 20", nil},
		{"bool", "true", telemetry.BoolType, telemetry.Tag{}, nil, "kind 1 bits 1", nil},
		{"text", "go", telemetry.StringType, telemetry.Tag{}, nil, `"go"`, nil},
		{"float32", "1.5", telemetry.Float32Type, telemetry.Tag{}, nil, "kind 4", nil},
		{"unknown type", "1.5", telemetry.AnyType, telemetry.Tag{}, nil, "kind 5", nil},
		{"over the range", "100.1", telemetry.Uint16Type, telemetry.Tag{}, nil, "use 0 to 100", ErrValue},
		{"below the range", "-1", telemetry.Int16Type, telemetry.Tag{}, nil, "use 0 to 100", ErrValue},
		{"over the type", "90", telemetry.Uint8Type, telemetry.Tag{Scale: 0.1}, nil, "holds 0 to 255", ErrValue},
		{"over the type without a scale", "300", telemetry.Uint8Type, telemetry.Tag{}, func(r *Rule) { r.Max = 1000 }, "value cannot be written: a uint8 holds 0 to 255\n", ErrValue},
		{"no number", "fast", telemetry.Uint16Type, telemetry.Tag{}, nil, "use a number", ErrValue},
		{"not a number", "NaN", telemetry.Uint16Type, telemetry.Tag{}, nil, "use a number", ErrValue},
		{"no bool", "2", telemetry.BoolType, telemetry.Tag{}, nil, "true or false", ErrValue},
		{"between two that the device holds", "4.26", telemetry.Int16Type, telemetry.Tag{Scale: 0.5}, nil, "holds 4 or 4.5", ErrValue},
		{"between two in short digits", "5.04", telemetry.Uint16Type, telemetry.Tag{Scale: 0.1}, nil, "holds 5 or 5.1\n", ErrValue},
		{"over the type in short digits", "0.3", telemetry.Uint8Type, telemetry.Tag{Scale: 0.001, Offset: 0.02}, nil, "without its scale it is 280, and", ErrValue},
		{"no whole number", "99.6", telemetry.Int16Type, telemetry.Tag{}, func(r *Rule) { r.Max = 99.6 }, "holds 99 or 100", ErrValue},
		{"the end of the range, scaled", "0.3", telemetry.Int16Type, telemetry.Tag{Scale: 0.1}, func(r *Rule) { r.Max = 0.3 }, "kind 2 bits 3", nil},
		{"turned by a negative scale", "10", telemetry.Int16Type, telemetry.Tag{Scale: -1}, nil, fmt.Sprintf("kind 2 bits %d", uint64(1<<64-10)), nil},
		{"over what a float64 can tell", "9007199254740993", telemetry.Int64Type, telemetry.Tag{}, func(r *Rule) { r.Max = 1e18 }, "kind 2 bits 9007199254740993 ", nil},
		{"the end of such a range", "1000000000000000000", telemetry.Uint64Type, telemetry.Tag{}, func(r *Rule) { r.Max = 1e18 }, "kind 3 bits 1000000000000000000 ", nil},
		{"one over the end of such a range", "1000000000000000001", telemetry.Uint64Type, telemetry.Tag{}, func(r *Rule) { r.Max = 1e18 }, "holds", ErrValue},
		{"over its type", "9223372036854775808", telemetry.Int64Type, telemetry.Tag{}, func(r *Rule) { r.Max = 1e19 }, "holds", ErrValue},
		{"too large to be told from its neighbour with a scale", "9007199254740993", telemetry.Int64Type, telemetry.Tag{Scale: 0.5}, func(r *Rule) { r.Max = 1e18 }, "holds", ErrValue},
		{"whole, and between two of a float32", "16777217", telemetry.Float32Type, telemetry.Tag{}, func(r *Rule) { r.Max = 1e18 }, "holds 16777216 or 16777218", ErrValue},
		{"a fraction, to its neighbour", "0.1", telemetry.Float32Type, telemetry.Tag{}, nil, "kind 4", nil},
		{"the largest that can be told", "9007199254740991", telemetry.Uint64Type, telemetry.Tag{}, func(r *Rule) { r.Max = 1e18 }, "bits 9007199254740991", nil},
		{"below zero of an unsigned type", "1", telemetry.Uint16Type, telemetry.Tag{Offset: 5}, nil, "holds 0 to 65535", ErrValue},
		{"too large for a float32", "1e39", telemetry.Float32Type, telemetry.Tag{}, func(r *Rule) { r.Max = 1e40 }, "too large", ErrValue},
		{"too large without its scale", "1e300", telemetry.Float64Type, telemetry.Tag{Scale: 1e-300}, func(r *Rule) { r.Max = 1e300 }, "too large", ErrValue},
		{"infinite", "inf", telemetry.Float64Type, telemetry.Tag{}, nil, "use a number", ErrValue},
		{"a time", "2026-01-01T00:00:00Z", telemetry.TimeType, telemetry.Tag{}, nil, "type time is read only", ErrValue},
		{"an array", "[1]", telemetry.ArrayType, telemetry.Tag{}, nil, "type array is read only", ErrValue},
		{"a text without end", strings.Repeat("x", 1025), telemetry.StringType, telemetry.Tag{}, nil, "1025 bytes; use 1024", ErrValue},
		{"no rate", "1", telemetry.Uint16Type, telemetry.Tag{}, func(r *Rule) { r.Count = 0 }, "no rate", ErrNotAllowed},
		{"no range", "2", telemetry.Uint16Type, telemetry.Tag{}, func(r *Rule) { r.Ranged = false }, "needs min and max", ErrNotAllowed},
	} {
		m := &machine{}
		r := New(slog.New(slog.DiscardHandler))
		rule := rule
		if c.rule != nil {
			c.rule(&rule)
		}
		r.Set([]Target{{Rule: rule, Group: drivers.Ref{Group: 1}, Index: 2, Tag: c.tag, Type: c.typ, Do: do(m)}})
		err := r.Write(t.Context(), Request{Device: "press", Tag: "speed", Value: c.value})
		got := fmt.Sprint(m.got, err, "\n")
		if !errors.Is(err, c.err) || c.err == nil && err != nil || !strings.Contains(got, c.want) || (c.err != nil) != (len(m.got) == 0) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// asking is a machine that has to be asked what a tag takes.
type asking struct {
	machine
	typ   telemetry.DataType
	array bool
	fails error
}

func (a *asking) WriteType(_ context.Context, g drivers.Ref, tag int) (telemetry.DataType, bool, error) {
	if g.Group != 1 || tag != 2 {
		return telemetry.AnyType, false, errors.New("another tag")
	}
	return a.typ, a.array, a.fails
}

// TestAsked: the type that the device says decides, before anything is written.
func TestAsked(t *testing.T) {
	for _, c := range []struct {
		name, value string
		typ         telemetry.DataType
		array       bool
		fails       error
		want        string
		err         error
		refused     uint64
	}{
		{"bool", "true", telemetry.BoolType, false, nil, "{0 1}/2 kind 1 bits 1", nil, 0},
		{"text", "42", telemetry.StringType, false, nil, `"42"`, nil, 0},
		{"whole", "42", telemetry.Int16Type, false, nil, "kind 2 bits 42", nil, 0},
		{"not whole", "4.2", telemetry.Int16Type, false, nil, "holds 4 or 5; nothing was written", ErrValue, 1},
		{"over the range", "101", telemetry.Int16Type, false, nil, "use 0 to 100; nothing was written", ErrValue, 1},
		{"no bool", "1.5", telemetry.BoolType, false, nil, "true or false", ErrValue, 1},
		{"array", "[1, 2, 100]", telemetry.Uint8Type, true, nil, "kind 8 bits 3", nil, 0},
		{"array of none", "[]", telemetry.Uint8Type, true, nil, "kind 8 bits 0", nil, 0},
		{"array of texts", `["a", "b"]`, telemetry.StringType, true, nil, "kind 8 bits 2", nil, 0},
		{"array with one over the range", "[1, 2, 101]", telemetry.Uint8Type, true, nil, "element 2: value cannot be written: use 0 to 100", ErrValue, 1},
		{"array with a text", `[1, "2"]`, telemetry.Uint8Type, true, nil, "element 1 is no uint8", ErrValue, 1},
		{"array with nothing", `[null]`, telemetry.Uint8Type, true, nil, "element 0 is no uint8", ErrValue, 1},
		{"array in an array", `[[1]]`, telemetry.Uint8Type, true, nil, "element 0 is no uint8", ErrValue, 1},
		{"no array", "1", telemetry.Uint8Type, true, nil, "use an array such as [1, 2, 3]", ErrValue, 1},
		{"two arrays", "[1] [2]", telemetry.Uint8Type, true, nil, "use an array such as [1, 2, 3]", ErrValue, 1},
		{"a bracket too many", "[1]]", telemetry.Uint8Type, true, nil, "use an array such as [1, 2, 3]", ErrValue, 1},
		{"null", "null", telemetry.Uint8Type, true, nil, "use an array such as [1, 2, 3]", ErrValue, 1},
		{"an array for one", "[1]", telemetry.Uint8Type, false, nil, "use a number", ErrValue, 1},
		{"a text without end", "[" + strings.Repeat("1,", 600) + "1]", telemetry.Uint8Type, true, nil, "use 1024 at most", ErrValue, 1},
		{"no such node", "1", telemetry.AnyType, false, errors.New("BadNodeIdUnknown"), "BadNodeIdUnknown; nothing was written", nil, 0},
		{"link down", "1", telemetry.AnyType, false, drivers.ErrLink, "connection is down; nothing was written", drivers.ErrLink, 0},
	} {
		m := &asking{typ: c.typ, array: c.array, fails: c.fails}
		r := New(slog.New(slog.DiscardHandler))
		r.Set([]Target{{Rule: Rule{Device: "press", Tag: "speed", Min: 0, Max: 100, Ranged: true, Count: 1, Per: time.Second}, Group: drivers.Ref{Group: 1}, Index: 2, Asks: true, Do: do(m)}})
		err := r.Write(t.Context(), Request{Device: "press", Tag: "speed", Value: c.value})
		got, failed := fmt.Sprint(m.got, err), c.err != nil || c.fails != nil
		if c.err != nil && !errors.Is(err, c.err) || !strings.Contains(got, c.want) || failed != (err != nil) || failed != (len(m.got) == 0) || r.Stats()[1].Refused != c.refused {
			t.Errorf("%s: %s, want %s; %+v", c.name, got, c.want, r.Stats())
		}
	}
}

// TestParse reads values for tools.
func TestParse(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		text  string
		typ   telemetry.DataType
		array bool
		want  telemetry.Value
		err   string
	}{
		{"0x10", telemetry.Uint16Type, false, telemetry.Uint(16), ""},
		{"-5", telemetry.Int16Type, false, telemetry.Int(-5), ""},
		{"1.5", telemetry.Float32Type, false, telemetry.Float64(1.5), ""},
		{"2026-01-02T03:04:05Z", telemetry.TimeType, false, telemetry.Time(at), ""},
		{`["2026-01-02T03:04:05Z"]`, telemetry.TimeType, true, telemetry.Array([]telemetry.Value{telemetry.Time(at)}), ""},
		{"[true]", telemetry.BoolType, true, telemetry.Array([]telemetry.Value{telemetry.Bool(true)}), ""},
		{"1.5", telemetry.Int16Type, false, telemetry.Value{}, `value "1.5" of the type int16: use a whole number, such as -12 or 0xff`},
		{"-1", telemetry.Uint16Type, false, telemetry.Value{}, `value "-1" of the type uint16: use a whole number from 0 on`},
		{"99999999999999999999", telemetry.Uint16Type, false, telemetry.Value{}, `value out of range`},
		{"tomorrow", telemetry.TimeType, false, telemetry.Value{}, `value "tomorrow" of the type time: use a time such as 2026-01-02T03:04:05Z, with Z or an offset such as +01:00`},
		{"[1, x]", telemetry.Int16Type, true, telemetry.Value{}, "use an array such as [1, 2, 3]"},
	} {
		v, err := Parse(c.text, c.typ, c.array)
		if c.err == "" && (err != nil || v != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %+v, %v", c.text, v, err)
		}
	}
}

// TestNothingUnnamed: without a rule nothing is written, and each command leaves a line and a count.
func TestNothingUnnamed(t *testing.T) {
	var log bytes.Buffer
	r := New(slog.New(slog.NewTextHandler(&log, nil)))
	m := &machine{err: errors.New("illegal data value")}
	r.Set([]Target{{Rule: Rule{Device: "a", Tag: "on", Count: 1000, Per: time.Second}, Type: telemetry.BoolType, Do: do(m)}, {Rule: Rule{Device: "b", Tag: "on", Count: 1000, Per: time.Second}, Type: telemetry.BoolType, Do: do(deaf{})}})
	if err := r.Write(t.Context(), Request{Device: "a", Tag: "off", Value: "true"}); !errors.Is(err, ErrNotAllowed) || len(m.got) > 0 {
		t.Errorf("a tag without a rule: %v, %v", err, m.got)
	}
	if err := r.Write(t.Context(), Request{Device: "a", Tag: "on", Value: "true", From: "a person"}); err == nil || !strings.Contains(err.Error(), "illegal data value") {
		t.Errorf("what the device refuses: %v", err)
	}
	if err := r.Write(t.Context(), Request{Device: "b", Tag: "on", Value: "true"}); !errors.Is(err, ErrNoWriter) {
		t.Errorf("a driver that does not write: %v", err)
	}
	if n := strings.Count(log.String(), "\n"); n != 3 || !strings.Contains(log.String(), `from="a person"`) {
		t.Errorf("the log has %d lines:\n%s", n, log.String())
	}
	if err := r.Write(t.Context(), Request{Device: "c", Tag: "on", Value: "true"}); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("a device without a rule: %v", err)
	}
	want := []Stats{{Refused: 1}, {Device: "a", Refused: 1, Failed: 1}, {Device: "b", Failed: 1}}
	if got := r.Stats(); !slices.Equal(got, want) {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		r := New(slog.New(slog.DiscardHandler))
		one := Target{Rule: Rule{Device: "a", Tag: "on", Count: 2, Per: time.Minute}, Type: telemetry.BoolType, Do: do(m)}
		r.Set([]Target{one})
		done := 0
		for range 600 {
			if err := r.Write(t.Context(), Request{Device: "a", Tag: "on", Value: "true"}); err == nil {
				done++
			} else if !errors.Is(err, ErrTooSoon) {
				t.Fatal(err)
			}
			r.Set([]Target{one}) // a reload gives nothing away
			time.Sleep(time.Second)
		}
		if done < 20 || done > 22 {
			t.Errorf("%d writes in ten minutes at two a minute", done)
		}
	})
}

// TestSlowDevice: commands for the tags of one device wait for each other, are bounded, and end; another device does not wait.
func TestSlowDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, quick := &machine{slow: 3 * time.Second}, &machine{}
		r := New(slog.New(slog.DiscardHandler))
		busy := allowBool("slow", "x", do(slow))
		busy.Do = func(_ context.Context, job func(drivers.Driver) error) error { return job(slow) } // no lock but the router's
		r.Set([]Target{busy, allowBool("slow", "y", busy.Do), allowBool("quick", "x", do(quick))})
		var wg sync.WaitGroup
		start, failed := time.Now(), make(chan error, 40)
		for i := range 40 {
			wg.Go(func() {
				if err := r.Write(t.Context(), Request{Device: "slow", Tag: []string{"x", "y"}[i%2], Value: "true"}); err != nil {
					failed <- err
				}
			})
		}
		synctest.Wait()
		if err := r.Write(t.Context(), Request{Device: "quick", Tag: "x", Value: "true"}); err != nil || time.Since(start) > 0 {
			t.Errorf("another device: %v after %v", err, time.Since(start))
		}
		if len(failed) != 40-queued {
			t.Errorf("%d refused at once, want %d", len(failed), 40-queued)
		}
		wg.Wait()
		if d := time.Since(start); d > 15*time.Second || len(slow.got) != 4 || slow.most != 1 {
			t.Errorf("after %v: %d written, %d at once", d, len(slow.got), slow.most)
		}
	})
}

// TestReloadWhileWaiting: a command that waits is judged by the rules that hold when its turn comes.
func TestReloadWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{slow: 3 * time.Second}
		r := New(slog.New(slog.DiscardHandler))
		r.Set([]Target{allowBool("a", "x", do(m)), allowBool("a", "y", do(m))})
		var wg sync.WaitGroup
		ask := func(tag string, want error) {
			wg.Go(func() {
				if err := r.Write(t.Context(), Request{Device: "a", Tag: tag, Value: "true"}); !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", tag, err, want)
				}
			})
			synctest.Wait()
		}
		ask("x", nil)
		ask("y", ErrNotAllowed)
		r.Set([]Target{allowBool("a", "x", do(m))})
		ask("x", nil)
		wg.Wait()
		if want := []Stats{{}, {Device: "a", Done: 2, Refused: 1}}; !slices.Equal(r.Stats(), want) {
			t.Errorf("stats %+v, want %+v", r.Stats(), want)
		}
	})
}

// TestUnknown: the answer says whether nothing was written, or whether that is not known.
func TestUnknown(t *testing.T) {
	gone := func(context.Context, func(drivers.Driver) error) error {
		return fmt.Errorf("%w: no route", drivers.ErrLink)
	}
	late := func(ctx context.Context, _ func(drivers.Driver) error) error { <-ctx.Done(); return ctx.Err() }
	for _, c := range []struct {
		name, want string
		do         func(context.Context, func(drivers.Driver) error) error
	}{
		{"link down before", "no route; nothing was written", gone},
		{"polls took all the time", "no answer within 10s; nothing was written", late},
		{"link lost meanwhile", "not known whether", do(&machine{err: fmt.Errorf("reset: %w", drivers.ErrLink)})},
		{"no answer in time", "no answer within 10s; it is not known whether", do(&machine{err: context.DeadlineExceeded})},
		{"stopped meanwhile", "the gateway stops; it is not known whether", do(&machine{err: context.Canceled})},
		{"the device says no", "illegal address", do(&machine{err: errors.New("illegal address")})},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := New(slog.New(slog.DiscardHandler))
			r.Set([]Target{allowBool("a", "x", c.do)})
			err := r.Write(t.Context(), Request{Device: "a", Tag: "x", Value: "true"})
			if err == nil || !strings.HasSuffix(err.Error(), c.want) && !strings.Contains(err.Error(), c.want+" it was written") {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
}

// TestForeignTexts: what comes from outside is cut before it is logged or answered.
func TestForeignTexts(t *testing.T) {
	var log bytes.Buffer
	r := New(slog.New(slog.NewTextHandler(&log, nil)))
	long := strings.Repeat("x", 1<<20)
	err := r.Write(t.Context(), Request{Device: long, Tag: long, Value: long, From: "line\nfeed" + long})
	if !errors.Is(err, ErrNotAllowed) || len(err.Error()) > 500 || log.Len() > 1000 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("an answer of %d bytes, a log of %d", len(err.Error()), log.Len())
	}
}
