package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	got  []string
	slow time.Duration
	err  error
}

func (m *machine) Write(_ context.Context, ws []drivers.Write) []error {
	time.Sleep(m.slow)
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

func TestWrite(t *testing.T) {
	rule := Rule{Device: "press", Tag: "speed", Min: 0, Max: 100, Ranged: true}
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
		{"no number", "fast", telemetry.Uint16Type, telemetry.Tag{}, nil, "use a number", ErrValue},
		{"not a number", "NaN", telemetry.Uint16Type, telemetry.Tag{}, nil, "use a number", ErrValue},
		{"no bool", "2", telemetry.BoolType, telemetry.Tag{}, nil, "true or false", ErrValue},
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
		got := fmt.Sprint(m.got, err)
		if !errors.Is(err, c.err) || c.err == nil && err != nil || !strings.Contains(got, c.want) || (c.err != nil) != (len(m.got) == 0) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestNothingUnnamed: without a rule nothing is written, and each command leaves a line and a count.
func TestNothingUnnamed(t *testing.T) {
	var log bytes.Buffer
	r := New(slog.New(slog.NewTextHandler(&log, nil)))
	m := &machine{err: errors.New("illegal data value")}
	r.Set([]Target{{Rule: Rule{Device: "a", Tag: "on"}, Type: telemetry.BoolType, Do: do(m)}, {Rule: Rule{Device: "b", Tag: "on"}, Type: telemetry.BoolType, Do: do(deaf{})}})
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
	for _, s := range r.Stats() {
		if s.Failed != 1 {
			t.Errorf("stats %+v", s)
		}
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		r := New(slog.New(slog.DiscardHandler))
		target := Target{Rule: Rule{Device: "a", Tag: "on", Count: 2, Per: time.Minute}, Type: telemetry.BoolType, Do: do(m)}
		r.Set([]Target{target})
		done := 0
		for range 600 {
			if err := r.Write(t.Context(), Request{Device: "a", Tag: "on", Value: "true"}); err == nil {
				done++
			} else if !errors.Is(err, ErrTooSoon) {
				t.Fatal(err)
			}
			r.Set([]Target{target}) // a reload gives nothing away
			time.Sleep(time.Second)
		}
		if done < 20 || done > 22 {
			t.Errorf("%d writes in ten minutes at two a minute", done)
		}
	})
}

// TestSlowDevice: commands for one device wait for each other, are bounded, and end.
func TestSlowDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{slow: 3 * time.Second}
		r := New(slog.New(slog.DiscardHandler))
		r.Set([]Target{{Rule: Rule{Device: "a", Tag: "on"}, Type: telemetry.BoolType, Do: do(m)}})
		var wg sync.WaitGroup
		start, failed := time.Now(), make(chan error, 40)
		for range 40 {
			wg.Go(func() {
				if err := r.Write(t.Context(), Request{Device: "a", Tag: "on", Value: "true"}); err != nil {
					failed <- err
				}
			})
		}
		wg.Wait()
		if d := time.Since(start); d > 15*time.Second || len(failed) < 30 || len(m.got) < 3 {
			t.Errorf("after %v: %d failed, %d written", d, len(failed), len(m.got))
		}
	})
}
