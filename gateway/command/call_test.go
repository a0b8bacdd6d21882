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

// press is a machine with a method.
type press struct {
	machine
	takes  []drivers.Argument
	before error // of the look-up
	after  error // of the call
	calls  []string
}

func (p *press) CheckMethod(drivers.Method) error { return nil }

func (p *press) Call(_ context.Context, m drivers.Method, give func([]drivers.Argument) ([]telemetry.Value, error)) ([]drivers.Result, error) {
	if p.before != nil {
		return nil, p.before
	}
	args, err := give(p.takes)
	if err != nil {
		return nil, err
	}
	p.calls = append(p.calls, fmt.Sprintf("%d %s %s", m.Device, m.Object, m.Node))
	for _, a := range args {
		p.got = append(p.got, fmt.Sprintf("kind %d bits %d %q", a.Kind, a.Bits, a.Text))
	}
	return []drivers.Result{{Name: "took", Type: "UInt32", Value: telemetry.Uint(7)}}, p.after
}

func allowStart(p drivers.Driver, arguments ...Range) Target {
	return Target{Rule: Rule{Device: "press", Method: "start", Arguments: arguments, Count: 100, Per: time.Second}, Method: drivers.Method{Device: 1, Object: "i=85", Node: "Start"}, Do: do(p)}
}

func TestCall(t *testing.T) {
	number := drivers.Argument{Name: "to", Type: telemetry.Float64Type}
	word := drivers.Argument{Name: "label", Type: telemetry.StringType}
	list := drivers.Argument{Name: "list", Type: telemetry.Int16Type, Array: true}
	percent := Range{0, 100, true}
	for _, c := range []struct {
		name  string
		takes []drivers.Argument
		rule  []Range
		args  []string
		want  string // what the device got, or part of the error
		err   error
	}{
		{"nothing", nil, nil, nil, "[1 i=85 Start] []", nil},
		{"a number", []drivers.Argument{number}, []Range{percent}, []string{"42"}, "kind 5", nil},
		{"a number and a text", []drivers.Argument{number, word}, []Range{percent}, []string{"42", "x"}, `"x"`, nil},
		{"a text and a number", []drivers.Argument{word, number}, []Range{{}, percent}, []string{"x", "42"}, `"x"`, nil},
		{"a bool", []drivers.Argument{{Type: telemetry.BoolType}}, nil, []string{"true"}, "kind 1 bits 1", nil},
		{"an array", []drivers.Argument{list}, []Range{percent}, []string{"[1, 100]"}, "kind 8 bits 2", nil},
		{"a large whole number", []drivers.Argument{{Type: telemetry.Uint64Type}}, []Range{{0, 1e19, true}}, []string{"9007199254740993"}, "kind 3 bits 9007199254740993", nil},
		{"over its range", []drivers.Argument{number}, []Range{percent}, []string{"100.5"}, `argument "to": value cannot be written: use 0 to 100; nothing was called`, ErrValue},
		{"one of an array over its range", []drivers.Argument{list}, []Range{percent}, []string{"[1, 101]"}, `element 1: value cannot be written: use 0 to 100`, ErrValue},
		{"no range", []drivers.Argument{number}, nil, []string{"1"}, `argument "to": not allowed: a number needs min and max`, ErrNotAllowed},
		{"no range, and an array of none", []drivers.Argument{list}, nil, []string{"[]"}, "a number needs min and max", ErrNotAllowed},
		{"the range of another", []drivers.Argument{word, number}, []Range{percent, percent}, []string{"x", "1"}, `argument "label": not allowed: the rule has min and max, and it takes a string`, ErrNotAllowed},
		{"a rule for more", []drivers.Argument{number}, []Range{percent, percent}, []string{"1"}, `the rule has 2 arguments, and the method takes "to" float64`, ErrNotAllowed},
		{"too few", []drivers.Argument{number, list}, []Range{percent, percent}, []string{"1"}, `the method takes "to" float64, "list" int16[]; 1 given`, ErrValue},
		{"too many", nil, nil, []string{"1"}, "the method takes no arguments; 1 given", ErrValue},
		{"no number", []drivers.Argument{number}, []Range{percent}, []string{"fast"}, "use a number", ErrValue},
		{"not whole", []drivers.Argument{{Type: telemetry.Uint8Type}}, []Range{percent}, []string{"1.5"}, "the device holds 1 or 2", ErrValue},
		{"a structure", []drivers.Argument{{Name: "recipe"}}, []Range{percent}, []string{"1"}, `argument "recipe": value cannot be written: it takes what a command cannot give`, ErrValue},
		{"a time", []drivers.Argument{{Type: telemetry.TimeType}}, nil, []string{"2026-01-01T00:00:00Z"}, "it takes what a command cannot give", ErrValue},
		{"a text without end", []drivers.Argument{word}, nil, []string{strings.Repeat("x", 1025)}, "argument 1: value cannot be written: it has 1025 bytes", ErrValue},
		{"arguments without end", nil, nil, make([]string, 65), "there are 65 arguments; give 64 at most", ErrValue},
	} {
		p := &press{takes: c.takes}
		r := New(slog.New(slog.DiscardHandler))
		r.Set([]Target{allowStart(p, c.rule...)})
		results, err := r.Call(t.Context(), Request{Device: "press", Method: "start", Arguments: c.args})
		got := fmt.Sprint(p.calls, p.got, err)
		called := len(p.calls) > 0
		if !errors.Is(err, c.err) || c.err == nil && err != nil || !strings.Contains(got, c.want) || (c.err != nil) == called || called != (len(results) == 1) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if want := (Stats{Device: "press", Done: 1}); c.err == nil && r.Stats()[1] != want || c.err != nil && r.Stats()[1].Refused != 1 {
			t.Errorf("%s: stats %+v", c.name, r.Stats())
		}
	}
}

// TestCallOutcome: what was not called, and what nobody knows of.
func TestCallOutcome(t *testing.T) {
	for _, c := range []struct {
		name string
		d    drivers.Driver
		want string
	}{
		{"no methods", &machine{}, "the devices of this driver have no methods; nothing was called"},
		{"no such method", &press{before: errors.New("no method")}, "no method; nothing was called"},
		{"down before", &press{before: drivers.ErrLink}, "connection is down; nothing was called"},
		{"down after", &press{after: fmt.Errorf("reset: %w", drivers.ErrLink)}, "connection is down; it is not known whether it was called: see what the machine does"},
		{"no answer in time", &press{after: context.DeadlineExceeded}, "no answer within 10s; it is not known whether it was called: see what the machine does"},
		{"the device says no", &press{after: errors.New("BadOutOfRange")}, "call press/start: BadOutOfRange"},
	} {
		r := New(slog.New(slog.DiscardHandler))
		r.Set([]Target{allowStart(c.d)})
		results, err := r.Call(t.Context(), Request{Device: "press", Method: "start"})
		if err == nil || !strings.HasSuffix(err.Error(), c.want) || results != nil || r.Stats()[1].Failed != 1 {
			t.Errorf("%s: %v, %v, %+v", c.name, results, err, r.Stats())
		}
	}
}

// TestCallsUnnamed: a rule of a tag allows no method of that name, nor the other way round; each command leaves a line.
func TestCallsUnnamed(t *testing.T) {
	var log bytes.Buffer
	r := New(slog.New(slog.NewTextHandler(&log, nil)))
	p := &press{takes: []drivers.Argument{{Type: telemetry.StringType}}}
	r.Set([]Target{allowStart(p), allowBool("press", "stop", do(p))})
	if _, err := r.Call(t.Context(), Request{Device: "press", Method: "stop", Tag: "stop"}); !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), "list the method under writes:") {
		t.Error(err)
	}
	if err := r.Write(t.Context(), Request{Device: "press", Tag: "start", Method: "start", Value: "true"}); !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), "list the tag under writes:") {
		t.Error(err)
	}
	if _, err := r.Call(t.Context(), Request{Device: "press", Method: "start", Arguments: []string{"a b\n" + strings.Repeat("x", 1000)}, From: "a person"}); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "\n"); n != 3 || log.Len() > 1000 || !strings.Contains(log.String(), `msg="command done" device=press method=start arguments="[\"a b`) {
		t.Errorf("the log has %d lines:\n%s", n, log.String())
	}
	if want := []Stats{{}, {Device: "press", Done: 1, Refused: 2}}; !slices.Equal(r.Stats(), want) {
		t.Errorf("stats %+v", r.Stats())
	}
	if len(p.calls) != 1 {
		t.Error(p.calls)
	}
}

// TestCallRate: calls of a method have a rate, and wait for the commands of their device.
func TestCallRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &press{machine: machine{slow: 20 * time.Second}}
		r := New(slog.New(slog.DiscardHandler))
		one := allowStart(p)
		one.Rule.Count, one.Rule.Per = 1, time.Minute
		r.Set([]Target{one, allowBool("press", "stop", do(p))})
		if _, err := r.Call(t.Context(), Request{Device: "press", Method: "start"}); err != nil {
			t.Error(err)
		}
		r.Set([]Target{one, allowBool("press", "stop", do(p))})
		if _, err := r.Call(t.Context(), Request{Device: "press", Method: "start"}); !errors.Is(err, ErrTooSoon) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() { _ = r.Write(t.Context(), Request{Device: "press", Tag: "stop", Value: "true"}) })
		synctest.Wait()
		if _, err := r.Call(t.Context(), Request{Device: "press", Method: "start"}); err == nil || !strings.Contains(err.Error(), "the commands before it took too long") || len(p.calls) != 1 {
			t.Error(err, p.calls)
		}
		wg.Wait()
	})
}
