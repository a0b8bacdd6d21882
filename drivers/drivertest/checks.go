package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

func checkMistakes(s *Suite) error {
	d, err := s.Protocol.New(s.Mistaken)
	if err == nil {
		return fmt.Errorf("New takes a config with %d mistakes", s.Mistakes)
	}
	if d != nil {
		return errors.New("New returns a driver and an error; want nil")
	}
	found := configErrors(err)
	if len(found) != s.Mistakes {
		return fmt.Errorf("New reports %d of %d mistakes:\n%w", len(found), s.Mistakes, err)
	}
	for _, e := range found {
		if err := placed(e, &s.Mistaken); err != nil {
			return fmt.Errorf("%q: %w", e.Error(), err)
		}
	}
	return nil
}

// configErrors finds every *drivers.ConfigError in the tree of joined and wrapped errors.
func configErrors(err error) []*drivers.ConfigError {
	if e, ok := err.(*drivers.ConfigError); ok {
		return []*drivers.ConfigError{e}
	}
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		var all []*drivers.ConfigError
		for _, one := range e.Unwrap() {
			all = append(all, configErrors(one)...)
		}
		return all
	case interface{ Unwrap() error }:
		return configErrors(e.Unwrap())
	}
	return nil
}

// placed complains when a mistake does not say where it is or what is wrong.
func placed(e *drivers.ConfigError, c *drivers.Connection) error {
	if e.What == "" || e.Field == "" {
		return errors.New("says no What or no Field")
	}
	if e.Device < 0 || e.Device >= len(c.Devices) {
		return fmt.Errorf("is of device %d, which does not exist", e.Device)
	}
	groups := c.Devices[e.Device].Groups
	if e.Group < -1 || e.Group >= len(groups) {
		return fmt.Errorf("is of group %d, which does not exist (-1 = of none)", e.Group)
	}
	if e.Tag < -1 || (e.Tag >= 0 && (e.Group < 0 || e.Tag >= len(groups[e.Group].Tags))) {
		return fmt.Errorf("is of tag %d of group %d, which does not exist (-1 = of none)", e.Tag, e.Group)
	}
	return nil
}

func checkNewOffline(s *Suite) error {
	before := goroutines()
	s.Down()
	defer s.Up()
	x, err := s.open()
	if err != nil {
		return fmt.Errorf("with the device down: %w", err)
	}
	if left := before.gone(s.Soon); left != nil {
		return fmt.Errorf("New starts goroutines: %w", left)
	}
	return x.close()
}

func checkPlan(s *Suite) error {
	x, err := s.open()
	if err != nil {
		return err
	}
	p, ok := x.driver.(drivers.Planner)
	if !ok {
		return nil
	}
	return s.refs(func(g drivers.Ref) error {
		lines := p.Plan(g)
		if len(lines) == 0 || slices.Contains(lines, "") {
			return fmt.Errorf("plan of %v is %q; want one line a request", g, lines)
		}
		if n := p.Requests(g); n < 0 || n > len(lines) {
			return fmt.Errorf("a poll of %v makes %d requests, and its plan has %d lines", g, n, len(lines))
		}
		return nil
	})
}

func checkReadUnconnected(s *Suite) error {
	x, err := s.open()
	if err != nil {
		return err
	}
	if err := wantReadError(x, "before Connect"); err != nil {
		return err
	}
	if err := x.connect(); err != nil {
		return err
	}
	if err := x.close(); err != nil {
		return fmt.Errorf("Close: %w", err)
	}
	return wantReadError(x, "after Close")
}

func wantReadError(x *session, when string) error {
	_, err := x.read(context.Background(), drivers.Ref{})
	if err == nil {
		return fmt.Errorf("Read %s returns no error", when)
	}
	return contract(err)
}

// contract keeps the errors that break the contract and forgives the others.
func contract(err error) error {
	if b := (*broken)(nil); errors.As(err, &b) {
		return err
	}
	return nil
}

func checkCloseOrder(s *Suite) error {
	x, err := s.open()
	if err != nil {
		return err
	}
	for range 2 {
		for range 2 {
			if err := x.close(); err != nil {
				return fmt.Errorf("Close of a closed driver: %w", err)
			}
		}
		if err := x.connect(); err != nil {
			return err
		}
		if _, err := x.read(context.Background(), drivers.Ref{}); err != nil {
			return fmt.Errorf("Read after Connect: %w", err)
		}
		if err := x.close(); err != nil {
			return fmt.Errorf("Close: %w", err)
		}
	}
	return nil
}

func checkReadings(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	for range 3 {
		err := s.refs(func(g drivers.Ref) error {
			readings, err := x.read(context.Background(), g)
			if err != nil {
				return fmt.Errorf("Read of %v: %w", g, err)
			}
			good := func(r telemetry.Reading) bool { return r.Quality == telemetry.Good }
			if !slices.ContainsFunc(readings, good) {
				return fmt.Errorf("Read of %v: no reading is good, the first says %q", g, readings[0].Reason)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func checkBadTags(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	for poll := range 5 {
		readings, err := x.read(context.Background(), drivers.Ref{})
		if err != nil {
			return fmt.Errorf("poll %d: %w", poll, err)
		}
		for i := range readings {
			if bad := readings[i].Quality == telemetry.Bad; bad != slices.Contains(s.BadTags, i) {
				return fmt.Errorf("poll %d: tag %d is %v (%q); want exactly %v bad", poll, i, readings[i].Quality, readings[i].Reason, s.BadTags)
			}
		}
	}
	return nil
}

func checkEndedContext(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := x.read(ended, drivers.Ref{}); err == nil || contract(err) != nil {
		return fmt.Errorf("Read with an ended context: error %v, want one and no readings", err)
	}
	if err := x.close(); err != nil {
		return fmt.Errorf("Close: %w", err)
	}
	err = x.soon("Connect with an ended context", func() error {
		if x.driver.Connect(ended) == nil {
			return errors.New("Connect with an ended context returns no error")
		}
		return nil
	})
	return errors.Join(err, x.close())
}

func checkFrozen(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	s.Freeze()
	defer s.Thaw()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := x.read(ctx, drivers.Ref{}); err == nil || contract(err) != nil {
		return fmt.Errorf("Read of a frozen device: error %v, want one and no readings", err)
	}
	if err := x.close(); err != nil {
		return fmt.Errorf("Close: %w", err)
	}
	connecting, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err = x.soon("Connect to a frozen device", func() error {
		_ = x.driver.Connect(connecting) // a driver need not notice before the first Read
		return nil
	})
	if err := errors.Join(err, x.close()); err != nil {
		return err
	}
	s.Thaw()
	return x.recovers()
}

func checkDown(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	if _, err := x.read(context.Background(), drivers.Ref{}); err != nil {
		return fmt.Errorf("Read: %w", err)
	}
	s.Down()
	defer s.Up()
	if err := wantReadError(x, "from a device that is down"); err != nil {
		return err
	}
	if err := x.close(); err != nil {
		return fmt.Errorf("Close: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.Soon)
	defer cancel()
	if err := x.soon("Connect", func() error { return x.driver.Connect(ctx) }); err == nil {
		return errors.New("Connect to a device that is down returns no error")
	}
	s.Up()
	return x.recovers()
}

// recovers acts as the poller does until a Read is good, for at most twice Suite.Soon.
func (x *session) recovers() error {
	last := errors.New("never read")
	for end := time.Now().Add(2 * x.Soon); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_ = x.driver.Close()
		if last = x.connect(); last != nil {
			continue
		}
		var readings []telemetry.Reading
		if readings, last = x.read(context.Background(), drivers.Ref{}); last != nil {
			continue
		}
		for i := range readings {
			if bad := readings[i].Quality == telemetry.Bad; bad && !slices.Contains(x.BadTags, i) {
				last = fmt.Errorf("tag %d is bad: %s", i, readings[i].Reason)
			}
		}
		if last == nil {
			return x.close()
		}
	}
	return fmt.Errorf("the device is back, the driver is not: %w", last)
}

func checkLeaks(s *Suite) error {
	before := goroutines()
	for _, check := range []func(*Suite) error{checkReadings, checkDown} {
		if err := check(s); err != nil {
			return err
		}
	}
	if left := before.gone(s.Soon); left != nil {
		return fmt.Errorf("still running after Close: %w", left)
	}
	return nil
}

func checkAllocs(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	ctx := context.Background()
	var dst []telemetry.Reading
	var failed error
	read := func() {
		var err error
		if dst, err = x.driver.Read(ctx, drivers.Ref{}, dst[:0]); err != nil {
			failed = err
		}
	}
	for range 10 {
		read() // a driver may size its buffers and learn the device first
	}
	got := testing.AllocsPerRun(50, read) / float64(max(1, len(dst)))
	if failed != nil {
		return failed
	}
	if got > s.AllocsPerReading {
		return fmt.Errorf("Read makes %.3f allocations a reading; claimed at most %.3f", got, s.AllocsPerReading)
	}
	return nil
}
