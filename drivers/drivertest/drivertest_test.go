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
	return &fake{plant: p, tags: len(c.Devices[0].Groups[0].Tags)}, nil
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
	f.open = true
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
	return nil
}

func (f *fake) spoil(dst []telemetry.Reading) []telemetry.Reading {
	mine := dst[len(dst)-f.tags:]
	mine[1] = telemetry.BadReading(1, 7, "no such register")
	switch f.fault {
	case "short":
		return dst[:len(dst)-1]
	case "out of order":
		mine[0], mine[2] = mine[2], mine[0]
	case "no reason":
		mine[1].Reason = ""
	case "value on bad":
		mine[1].Value = telemetry.Int(4)
	case "no time":
		mine[0].Time = 0
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

// pushing is a fake that is also a Subscriber. lagging is how long it goes on after its context ended.
type pushing struct {
	*fake
	readings []telemetry.Reading
	lagging  time.Duration
}

func (p *pushing) Subscribe(ctx context.Context, _ drivers.Ref, emit func([]telemetry.Reading) error) error {
	if err := emit(p.readings); err != nil {
		return err
	}
	<-ctx.Done()
	time.Sleep(p.lagging)
	return ctx.Err()
}

func TestSubscribeIsChecked(t *testing.T) {
	three := []telemetry.Reading{{Tag: 0}, {Tag: 1}, {Tag: 2}}
	for name, c := range map[string]struct {
		pushing
		want string
	}{
		"good":        {pushing{readings: three}, ""},
		"foreign tag": {pushing{readings: []telemetry.Reading{{Tag: 3}}}, "reading of tag 3 of 3"},
		"too few":     {pushing{readings: three[:2]}, "pushed 2 readings for 3 tags"},
		"lagging":     {pushing{readings: three, lagging: 300 * time.Millisecond}, "after its context"},
	} {
		p := &plant{}
		s := suite(p)
		s.Protocol.New = func(drivers.Connection) (drivers.Driver, error) {
			c.pushing.fake = &fake{plant: p, tags: 3}
			return &c.pushing, nil
		}
		err := checkSubscribe(&s)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func suite(p *plant) Suite {
	tags := []telemetry.Tag{{Address: "a"}, {Address: "b"}, {Address: "c"}}
	conn := func(tags []telemetry.Tag) drivers.Connection {
		return drivers.Connection{Devices: []drivers.Device{{Groups: []drivers.Group{{Tags: tags}}}}}
	}
	return Suite{
		Protocol:   drivers.Protocol{Name: "fake", New: p.New},
		Connection: conn(tags),
		BadTags:    []int{1},
		Mistaken:   conn([]telemetry.Tag{{}, {Address: "b"}, {}}),
		Mistakes:   2,
		Down:       func() { p.down = true },
		Up:         func() { p.down = false },
		Freeze:     func() { p.frozen = true },
		Thaw:       func() { p.frozen = false },
		Soon:       200 * time.Millisecond,

		AllocsPerReading: 0.1,
	}
}

func TestGoodDriverPasses(t *testing.T) { Run(t, suite(&plant{})) }

// TestEachFaultIsSeen shows that no check is blind: each broken driver fails the check named beside it.
func TestEachFaultIsSeen(t *testing.T) {
	for fault, want := range map[string]string{
		"first mistake only": "new reports every mistake at once",
		"misplaced mistake":  "new reports every mistake at once",
		"network in new":     "new touches no network",
		"goroutine in new":   "new touches no network",
		"no plan":            "plan says something for each group",
		"stale":              "read before connect is an error",
		"close once":         "close in any order",
		"slow connect":       "close in any order",
		"short":              "one reading for each tag, in order",
		"out of order":       "one reading for each tag, in order",
		"no reason":          "one reading for each tag, in order",
		"value on bad":       "one reading for each tag, in order",
		"no time":            "one reading for each tag, in order",
		"overwrites":         "one reading for each tag, in order",
		"costs the others":   "a bad tag does not cost the others",
		"ignores context":    "an ended context ends calls soon",
		"deaf":               "a frozen device ends calls soon",
		"appends and fails":  "a device that is down is an error, and recovers",
		"leak":               "nothing is left running after close",
		"allocates":          "read allocates no more than claimed",
	} {
		t.Run(fault, func(t *testing.T) {
			p := &plant{fault: fault, stop: make(chan struct{})}
			defer close(p.stop)
			s := suite(p)
			for _, c := range checks {
				if c.name != want {
					continue
				}
				err := c.run(&s)
				if err == nil {
					t.Errorf("check %q does not see it", want)
				}
				t.Log(err)
				return
			}
			t.Fatalf("no check %q", want)
		})
	}
}
