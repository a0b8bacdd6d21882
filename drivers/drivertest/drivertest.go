// Package drivertest is the conformance suite of drivers: what drivers.Driver promises in words, it
// checks against a real or simulated device. Each driver's tests call Run once.
//
// The checks are plain functions that return an error, so that the suite itself is tested: see
// drivertest_test.go, where each check is shown a driver that breaks its rule.
package drivertest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Suite describes a driver and the device that it is tried on. Every driver made by the suite gets
// Connection or Mistaken; the tests run one after the other.
type Suite struct {
	Protocol drivers.Protocol

	// Connection leads to a device that answers now. Every group of every device can be read, and at
	// least one tag of each is good; group 0 of device 0 also holds the BadTags.
	Connection drivers.Connection
	BadTags    []int // indexes of the tags of group 0 of device 0 that the device refuses to read

	// Mistaken is a config with this many mistakes: New must report each as one *drivers.ConfigError.
	Mistaken drivers.Connection
	Mistakes int

	// Each of the four may be called when it is so already.
	Down, Up     func()        // the device cuts its connections and refuses new ones; it is back
	Freeze, Thaw func()        // the device keeps its connections and says nothing; it goes on. Nil: not tried
	Soon         time.Duration // how long any one call may take, whatever the device does; 0 = 5 s

	// For a driver that is a drivers.Writer: what the device confirms, each for another tag that then reads back so, and
	// what it refuses while it confirms the others. Both nil: writing is not tried.
	Writes, Refused []drivers.Write

	// For a drivers.Caller: methods of the device. Nil: calling is not tried.
	Calls *Calls

	// For a drivers.Browser: addresses that it finds below the root. Nil: only what holds for every device is tried.
	Browsable []string

	// For a drivers.Historian: source times between which the device has readings of group 0 of device 0, µs since 1970.
	// To 0: history is not tried.
	HistoryFrom, HistoryTo int64

	// AllocsPerReading bounds the heap allocations of a Read of group 0 of device 0, for each reading,
	// the simulated device in the same process included. 0 = the driver makes no claim.
	AllocsPerReading float64
}

// Run runs every check of the suite as a subtest.
func Run(t *testing.T, s Suite) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { s.check(t, c) })
	}
}

// RunIn is Run with each check in a world of its own, such as one with its own clock (synctest.Test): begin makes it, and the suite is made
// within. There Soon is a bound that no slow machine exceeds.
func RunIn(t *testing.T, begin func(*testing.T, func(*testing.T)), suite func(*testing.T) Suite) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			begin(t, func(t *testing.T) {
				s := suite(t)
				s.check(t, c)
			})
		})
	}
}

func (s *Suite) check(t *testing.T, c check) {
	if s.Soon == 0 {
		s.Soon = 5 * time.Second
	}
	if c.needs != nil && !c.needs(s) {
		t.Skipf("the suite of %q does not describe a device for this", s.Protocol.Name)
	}
	if err := c.run(s); err != nil {
		t.Error(err)
	}
}

type check struct {
	name  string
	needs func(*Suite) bool // nil = always
	run   func(*Suite) error
}

var checks = []check{
	{"new reports every mistake at once", nil, checkMistakes},
	{"new touches no network", nil, checkNewOffline},
	{"plan says something for each group", nil, checkPlan},
	{"read before connect is an error", nil, checkReadUnconnected},
	{"close in any order", nil, checkCloseOrder},
	{"one reading for each tag, in order", nil, checkReadings},
	{"a bad tag does not cost the others", func(s *Suite) bool { return len(s.BadTags) > 0 }, checkBadTags},
	{"an ended context ends calls soon", nil, checkEndedContext},
	{"a frozen device ends calls soon", func(s *Suite) bool { return s.Freeze != nil }, checkFrozen},
	{"a device that is down is an error, and recovers", nil, checkDown},
	{"a cut connection costs one try", nil, checkCut},
	{"subscribed groups are pushed until the link is lost", nil, checkSubscribe},
	{"writes are confirmed or refused one by one", func(s *Suite) bool { return len(s.Writes) > 0 }, checkWrite},
	{"write without a link says so", func(s *Suite) bool { return len(s.Writes) > 0 }, checkWriteDown},
	{"methods are called once, with arguments that were given", func(s *Suite) bool { return s.Calls != nil }, checkCall},
	{"call without a link says so", func(s *Suite) bool { return s.Calls != nil }, checkCallDown},
	{"browse finds what is there and ends", nil, checkBrowse},
	{"history is whole, in order and in its bounds", func(s *Suite) bool { return s.HistoryTo > 0 }, checkHistory},
	{"data types are those of the readings", nil, checkTypes},
	{"tags of events are of the group, and no values", nil, checkEvents},
	{"texts are as long as the driver says at most", nil, checkSizes},
	{"nothing is left running after close", nil, checkLeaks},
	{"read allocates no more than claimed", func(s *Suite) bool { return s.AllocsPerReading > 0 }, checkAllocs},
}

// session is one driver under test.
type session struct {
	*Suite
	driver drivers.Driver
}

func (s *Suite) open() (*session, error) {
	d, err := s.Protocol.New(s.Connection)
	if err != nil {
		return nil, fmt.Errorf("New refuses a good config: %w", err)
	}
	return &session{s, d}, nil
}

// connected opens a driver and connects it.
func (s *Suite) connected() (*session, error) {
	x, err := s.open()
	if err != nil {
		return nil, err
	}
	if err := x.connect(); err != nil {
		return nil, err
	}
	return x, nil
}

func (x *session) connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), x.Soon)
	defer cancel()
	return x.soon("Connect", func() error {
		if err := x.driver.Connect(ctx); err != nil {
			return fmt.Errorf("Connect to a device that answers: %w", err)
		}
		return nil
	})
}

func (x *session) close() error {
	return x.soon("Close", x.driver.Close)
}

// soon runs one call and complains when it takes longer than Suite.Soon.
func (s *Suite) soon(what string, f func() error) error {
	start := time.Now()
	err := f()
	if took := time.Since(start); took > s.Soon {
		return fmt.Errorf("%s took %v, want at most %v", what, took.Round(time.Millisecond), s.Soon)
	}
	return err
}

// sentinel stands before the readings of each Read, to see that dst is appended to and kept.
var sentinel = telemetry.Reading{Tag: 1 << 30, Time: 42, Reason: "not the driver's", Quality: telemetry.Uncertain}

// read reads a group and checks all that holds for every answer. It returns the readings without the sentinel.
func (x *session) read(ctx context.Context, g drivers.Ref) ([]telemetry.Reading, error) {
	dst := append(make([]telemetry.Reading, 0, 4), sentinel)
	var got []telemetry.Reading
	var readErr error
	err := x.soon("Read", func() error {
		got, readErr = x.driver.Read(ctx, g, dst)
		return nil
	})
	if err != nil {
		return nil, &broken{err}
	}
	if readErr != nil {
		if len(got) > 1 {
			return nil, &broken{fmt.Errorf("Read of %v returned an error and %d readings; want none appended: %w", g, len(got)-1, readErr)}
		}
		return nil, readErr
	}
	if len(got) == 0 || got[0] != sentinel {
		return nil, &broken{fmt.Errorf("Read of %v did not append to dst: what stood there is gone", g)}
	}
	tags := x.Connection.Devices[g.Device].Groups[g.Group].Tags
	if err := checkShape(got[1:], len(tags)); err != nil {
		return nil, &broken{fmt.Errorf("Read of %v: %w", g, err)}
	}
	return got[1:], nil
}

// broken marks an error that breaks the contract, as against one that a device may well cause.
type broken struct{ error }

func (b *broken) Unwrap() error { return b.error }

// checkShape holds what is true of the readings of any poll.
func checkShape(readings []telemetry.Reading, tags int) error {
	if len(readings) != tags {
		return fmt.Errorf("%d readings for %d tags", len(readings), tags)
	}
	for i := range readings {
		r := &readings[i]
		if int(r.Tag) != i {
			return fmt.Errorf("reading %d is of tag %d; want the order of the tags", i, r.Tag)
		}
		if err := checkReading(r); err != nil {
			return err
		}
	}
	return nil
}

// checkReading holds what is true of any reading.
func checkReading(r *telemetry.Reading) error {
	switch {
	case r.Quality == telemetry.Good && (r.Reason != "" || r.Value.Kind == telemetry.KindNone):
		return fmt.Errorf("good reading of tag %d has reason %q and value kind %d", r.Tag, r.Reason, r.Value.Kind)
	case r.Quality == telemetry.Bad && (r.Reason == "" || r.Value != telemetry.Value{}):
		return fmt.Errorf("bad reading of tag %d has reason %q and value %+v; want a reason and no value", r.Tag, r.Reason, r.Value)
	}
	return nil
}

// refs calls f for each group of the connection until it fails.
func (s *Suite) refs(f func(drivers.Ref) error) error {
	for i := range s.Connection.Devices {
		for j := range s.Connection.Devices[i].Groups {
			if err := f(drivers.Ref{Device: i, Group: j}); err != nil {
				return err
			}
		}
	}
	return nil
}
