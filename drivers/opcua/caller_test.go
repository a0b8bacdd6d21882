package opcua

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// giving returns what gives arguments, and counts that it was asked.
func giving(asked *int, args ...telemetry.Value) func([]drivers.Argument) ([]telemetry.Value, error) {
	return func([]drivers.Argument) ([]telemetry.Value, error) {
		*asked++
		return args, nil
	}
}

// TestCallRefusals: what is not called, what the server refuses, and what it leaves open. The link is good after each.
func TestCallRefusals(t *testing.T) {
	s := start(t, opcuasim.Options{Browsable: true, Namespaces: []string{"urn:millrace:machine", "urn:other"}}, 1)
	var status atomic.Uint32
	in := []opcuasim.Argument{{Name: "n", Type: id.UInt16, Rank: -1}}
	s.AddMethod("Start", opcuasim.Method{Inputs: in, Call: func([]any) ([]any, uint32) { return nil, status.Load() }})
	s.AddMethod("Load", opcuasim.Method{Inputs: []opcuasim.Argument{{Name: "recipe", Type: id.Structure, Rank: -1}}, Call: func([]any) ([]any, uint32) { return nil, 0 }})
	for ns := range 2 {
		s.AddMethod("Twice", opcuasim.Method{Namespace: ns, Call: func([]any) ([]any, uint32) { return nil, 0 }})
	}
	d := connect(t, connection(s.Endpoint(), 10*time.Second, "ns=2;s=v0"))
	const open = "; it is not known whether the server carried it out: see what the machine does"
	for _, c := range []struct {
		object, node string
		args         []telemetry.Value
		status       ua.StatusCode
		want         string
		asked        int
	}{
		{"i=85", "Start", []telemetry.Value{telemetry.Uint(1)}, 0, "", 1},
		{"i=85", "nsu=urn:millrace:machine;s=Start", []telemetry.Value{telemetry.Uint(1)}, 0, "", 1},
		{"i=85", "Start", []telemetry.Value{telemetry.Uint(70000)}, 0, `argument "n": the value 70000 does not fit`, 1},
		{"i=85", "Start", nil, 0, "the method takes 1 arguments, not 0", 1},
		{"i=85", "Load", []telemetry.Value{telemetry.Uint(1)}, 0, `argument "recipe": values of type structure are not written`, 1},
		{"i=85", "Stop", nil, 0, `the object i=85 has no method "Stop"; it has "`, 0},
		{"i=85", "Twice", nil, 0, `the object i=85 has more than one method "Twice"; give the node id, nsu=urn:`, 0},
		{"i=85", "nsu=urn:other;s=Twice", nil, 0, "", 1},
		{"i=99999", "Start", nil, 0, "the node cannot be browsed: BadNodeIdUnknown", 0},
		{"nsu=urn:nobody;s=x", "Start", nil, 0, `the server has no namespace "urn:nobody"`, 0},
		{"i=86", "nsu=urn:millrace:machine;s=Start", []telemetry.Value{telemetry.Uint(1)}, 0, "BadMethodInvalid: ", 1},
		{"", "Start", nil, 0, `it has no key "object"; add the node id`, 0},
		{"ns=2;s=Press", "Start", nil, 0, `object "ns=2;s=Press" names its namespace by an index`, 0},
		{"i=85", "ns=2;s=Start", nil, 0, `node "ns=2;s=Start" names its namespace by an index`, 0},
		{"i=85", "nsu=urn:x;q=1", nil, 0, `node "nsu=urn:x;q=1": no identifier of the form`, 0},
		{"/Objects/Press", "Start", nil, 0, "is a browse path; write its node id", 0},
		{"i=85", "Start", []telemetry.Value{telemetry.Uint(1)}, ua.StatusBadOutOfRange, "BadOutOfRange: ", 1},
		{"i=85", "Start", []telemetry.Value{telemetry.Uint(1)}, ua.StatusBadTimeout, open, 1},
		{"i=85", "Start", []telemetry.Value{telemetry.Uint(1)}, ua.StatusUncertainInitialValue, open, 1},
	} {
		status.Store(uint32(c.status))
		asked := 0
		_, err := d.Call(t.Context(), drivers.Method{Object: c.object, Node: c.node}, giving(&asked, c.args...))
		switch {
		case (err == nil) != (c.want == ""), err != nil && !strings.Contains(err.Error(), c.want), c.want != open && err != nil && strings.Contains(err.Error(), open):
			t.Errorf("%s of %s: %v, want %q", c.node, c.object, err, c.want)
		case asked != c.asked, errors.Is(err, drivers.ErrLink):
			t.Errorf("%s of %s: asked for arguments %d times; %v", c.node, c.object, asked, err)
		}
	}
	read(t, d) // the link is good
}

// TestCallLink: a call without an answer says that the link is down, and is not made again by itself.
func TestCallLink(t *testing.T) {
	t.Parallel()
	s := start(t, opcuasim.Options{Browsable: true}, 1)
	var called atomic.Int32
	s.AddMethod("Start", opcuasim.Method{Call: func([]any) ([]any, uint32) {
		called.Add(1)
		s.SetSilent(true) // the answer does not come any more
		return nil, 0
	}})
	d := connect(t, connection(s.Endpoint(), brief, "ns=2;s=v0"))
	asked := 0
	_, err := d.Call(t.Context(), drivers.Method{Object: "i=85", Node: "Start"}, giving(&asked))
	if !errors.Is(err, drivers.ErrLink) || asked != 1 || called.Load() != 1 {
		t.Errorf("no answer: %v; asked %d times, called %d times", err, asked, called.Load())
	}
	d.Close()
	if _, err := d.Call(t.Context(), drivers.Method{Object: "i=85", Node: "Start"}, giving(&asked)); !errors.Is(err, drivers.ErrLink) || asked != 1 {
		t.Errorf("not connected: %v; asked %d times", err, asked)
	}
}

// TestCallWhileSubscribed: the feed and a call share a session.
func TestCallWhileSubscribed(t *testing.T) {
	s := start(t, opcuasim.Options{Browsable: true}, 1)
	var level atomic.Int32
	s.AddVariable("level", func() any { return level.Load() })
	s.AddMethod("Fill", opcuasim.Method{Inputs: []opcuasim.Argument{{Name: "to", Type: id.Int32, Rank: -1}}, Outputs: []opcuasim.Argument{{Name: "was", Type: id.Int32, Rank: -1}},
		Call: func(args []any) ([]any, uint32) { return []any{level.Swap(args[0].(int32))}, 0 }})
	c := connection(s.Endpoint(), 10*time.Second, "ns=2;s=level")
	c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
	d := connect(t, c)
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	pushes, asked := d.Pushed(), 0
	for n := range int64(4) {
		results, err := d.Call(t.Context(), drivers.Method{Object: "i=85", Node: "Fill"}, giving(&asked, telemetry.Int(n+1)))
		if want := fmt.Sprint([]drivers.Result{{Name: "was", Type: "Int32", Value: telemetry.Int(n)}}); err != nil || fmt.Sprint(results) != want {
			t.Fatal(results, err)
		}
		next(t, pushes, func(p *drivers.Push) bool {
			return len(p.Readings) > 0 && p.Readings[len(p.Readings)-1].Value == telemetry.Int(n+1)
		})
	}
}
