package drivertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// plant is a device without a network. faults names the rule that its driver breaks, "" for none.
type plant struct {
	down, frozen bool
	fault        string
	full         bool          // the driver is everything that a driver can be
	cut          bool          // the connection was cut since Connect
	lost         func()        // ends the pushes of the connection
	called       int           // methods
	stop         chan struct{} // ends what a leaky driver leaves behind
}

type fake struct {
	*plant
	tags int
	open bool
}

func (p *plant) New(c drivers.Connection) (drivers.Driver, error) {
	var errs []error
	for i, d := range c.Devices {
		for j, g := range d.Groups {
			for k, t := range g.Tags {
				if t.Address == "" {
					errs = append(errs, &drivers.ConfigError{Device: i, Group: j, Tag: k, Field: "address", What: "no address"})
				}
			}
		}
	}
	switch {
	case p.fault == "first mistake only" && len(errs) > 1:
		errs = errs[:1]
	case p.fault == "misplaced mistake" && len(errs) > 0:
		errs[0].(*drivers.ConfigError).Tag = 99
	case p.fault == "network in new" && p.down:
		return nil, errors.New("connection refused")
	case p.fault == "goroutine in new":
		go func() { <-p.stop }()
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("check: %w", errors.Join(errs...))
	}
	f := &fake{plant: p, tags: len(c.Devices[0].Groups[0].Tags)}
	if p.full {
		return &full{fake: f, values: map[int]telemetry.Value{}}, nil
	}
	return f, nil
}

func (f *fake) Connect(ctx context.Context) error {
	if f.fault == "leak" {
		go func() { <-f.stop }()
	}
	if f.fault == "slow connect" {
		time.Sleep(300 * time.Millisecond)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if f.down {
		return errors.New("connection refused")
	}
	f.open, f.cut = true, false
	return nil
}

func (f *fake) Close() error {
	if !f.open && f.fault == "close once" {
		return errors.New("already closed")
	}
	f.open = false
	return nil
}

func (f *fake) Read(ctx context.Context, g drivers.Ref, dst []telemetry.Reading) ([]telemetry.Reading, error) {
	if f.frozen {
		if f.fault == "deaf" {
			time.Sleep(300 * time.Millisecond)
		}
		<-ctx.Done()
	}
	if err := f.failure(ctx); err != nil {
		if f.fault == "appends and fails" {
			return append(dst, telemetry.BadReading(0, 1, "half")), err
		}
		return dst, err
	}
	if f.fault == "overwrites" {
		dst = dst[:0]
	}
	for i := range f.tags {
		dst = append(dst, telemetry.Reading{Tag: uint32(i), Time: 7, Value: telemetry.Int(int64(i))})
	}
	return f.spoil(dst), nil
}

func (f *fake) failure(ctx context.Context) error {
	if ctx.Err() != nil && f.fault != "deaf" && f.fault != "ignores context" {
		return ctx.Err()
	}
	if (f.down || !f.open) && f.fault != "stale" {
		return errors.New("not connected")
	}
	if f.cut && f.fault == "cut in other words" {
		return errors.New("it is gone")
	}
	if f.cut {
		return drivers.ErrClosed
	}
	return nil
}

func (f *fake) spoil(dst []telemetry.Reading) []telemetry.Reading {
	mine := dst[len(dst)-f.tags:]
	mine[1] = telemetry.BadReading(1, 7, "no such register")
	switch f.fault {
	case "good without a value":
		mine[0].Value = telemetry.Value{}
	case "short":
		return dst[:len(dst)-1]
	case "out of order":
		mine[0], mine[2] = mine[2], mine[0]
	case "no reason":
		mine[1].Reason = ""
	case "value on bad":
		mine[1].Value = telemetry.Int(4)
	case "costs the others":
		mine[2] = telemetry.BadReading(2, 7, "neighbour is bad")
	case "allocates":
		mine[0].Value = telemetry.String(strings.Repeat("x", f.tags))
	}
	return dst
}

func (f *fake) Plan(drivers.Ref) []string {
	if f.fault == "no plan" {
		return nil
	}
	return []string{"read all"}
}

func (f *fake) Requests(drivers.Ref) int {
	if f.fault == "too many requests" {
		return 2
	}
	return 1
}

func suite(p *plant) Suite {
	tags := []telemetry.Tag{{Address: "a"}, {Address: "b"}, {Address: "c"}}
	conn := func(tags []telemetry.Tag) drivers.Connection {
		return drivers.Connection{Devices: []drivers.Device{{Groups: []drivers.Group{{Tags: tags}}}}}
	}
	soon := time.Minute // the fake does all at once, and the machine may stand still
	if p.fault != "" {
		soon = 200 * time.Millisecond // the late faults take longer, and some checks wait as long to be sure
	}
	return Suite{
		Protocol:   drivers.Protocol{Name: "fake", New: p.New},
		Connection: conn(tags),
		BadTags:    []int{1},
		Mistaken:   conn([]telemetry.Tag{{}, {Address: "b"}, {}}),
		Mistakes:   2,
		Down:       func() { p.down, p.cut = true, true },
		Up:         func() { p.down = false },
		Freeze:     func() { p.frozen = true },
		Thaw:       func() { p.frozen = false },
		Soon:       soon,

		AllocsPerReading: 0.1,
	}
}

func TestGoodDriverPasses(t *testing.T) { Run(t, suite(&plant{})) }

// TestEachFaultIsSeen shows that no check is blind: each broken driver fails the check named beside it.
func TestEachFaultIsSeen(t *testing.T) {
	for fault, want := range map[string]string{
		"first mistake only":   "new reports every mistake at once",
		"misplaced mistake":    "new reports every mistake at once",
		"network in new":       "new touches no network",
		"goroutine in new":     "new touches no network",
		"no plan":              "plan says something for each group",
		"too many requests":    "plan says something for each group",
		"stale":                "read before connect is an error",
		"close once":           "close in any order",
		"slow connect":         "close in any order",
		"short":                "one reading for each tag, in order",
		"out of order":         "one reading for each tag, in order",
		"good without a value": "one reading for each tag, in order",
		"cut in other words":   "a cut connection costs one try",
		"no reason":            "one reading for each tag, in order",
		"value on bad":         "one reading for each tag, in order",
		"overwrites":           "one reading for each tag, in order",
		"costs the others":     "a bad tag does not cost the others",
		"ignores context":      "an ended context ends calls soon",
		"deaf":                 "a frozen device ends calls soon",
		"appends and fails":    "a device that is down is an error, and recovers",
		"leak":                 "nothing is left running after close",
		"allocates":            "read allocates no more than claimed",
	} {
		t.Run(fault, func(t *testing.T) {
			p := &plant{fault: fault, stop: make(chan struct{})}
			defer close(p.stop)
			s := suite(p)
			sees(t, &s, want)
		})
	}
}

// sees fails the test unless the check of this name fails.
func sees(t *testing.T, s *Suite, name string) {
	t.Helper()
	for _, c := range checks {
		if c.name != name {
			continue
		}
		err := c.run(s)
		if err == nil {
			t.Errorf("check %q does not see it", name)
		}
		t.Log(err)
		return
	}
	t.Fatalf("no check %q", name)
}
