package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Calls describes the methods of the device of a drivers.Caller.
type Calls struct {
	Method        drivers.Method // takes Args and gives Results
	Args, Results []telemetry.Value
	Missing       drivers.Method   // the device has none such
	Impossible    []drivers.Method // never called, as the config alone tells
	Seen          func() int       // how often the device was called
}

// call calls a method with the arguments and checks all that holds for every call. given is how often it asked for them.
func (x *session) call(c drivers.Caller, m drivers.Method, refuse error) (values []telemetry.Value, given int, err error) {
	before := x.Calls.Seen()
	var results []drivers.Result
	late := x.soon("Call", func() error {
		results, err = c.Call(context.Background(), m, func(takes []drivers.Argument) ([]telemetry.Value, error) {
			given++
			return x.Calls.Args, errors.Join(refuse, x.fitting(takes))
		})
		return nil
	})
	seen := x.Calls.Seen() - before
	for _, r := range results {
		values = append(values, r.Value)
	}
	switch {
	case late != nil:
		return nil, given, &broken{late}
	case given > 1 || seen > 1:
		return nil, given, &broken{fmt.Errorf("one Call asks for the arguments %d times and calls %d times", given, seen)}
	case seen > given || refuse != nil && seen > 0:
		return nil, given, &broken{errors.New("Call calls before it has the arguments")}
	}
	return values, given, err
}

// fitting checks what a method says that it takes.
func (x *session) fitting(takes []drivers.Argument) error {
	if len(takes) != len(x.Calls.Args) {
		return fmt.Errorf("the method takes %d arguments; want %d", len(takes), len(x.Calls.Args))
	}
	for i, want := range x.Calls.Args {
		if isArray := want.Kind == telemetry.KindArray; takes[i].Array != isArray || !isArray && takes[i].Type.Kind() != want.Kind {
			return fmt.Errorf("the method takes %+v where %+v is meant", takes[i], want)
		}
	}
	return nil
}

func checkCall(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	c, err := able[drivers.Caller](x, "Calls")
	if err != nil {
		return err
	}
	if err := errors.Join(c.CheckMethod(s.Calls.Method), c.CheckMethod(s.Calls.Missing)); err != nil {
		return fmt.Errorf("CheckMethod refuses what the config alone cannot tell: %w", err)
	}
	if err := x.callsRefused(c); err != nil {
		return err
	}
	got, _, err := x.call(c, s.Calls.Method, nil)
	switch {
	case err != nil:
		return fmt.Errorf("Call %+v: %w", s.Calls.Method, err)
	case !slices.Equal(got, s.Calls.Results):
		return fmt.Errorf("Call %+v gives %+v; want %+v", s.Calls.Method, got, s.Calls.Results)
	}
	return nil
}

// callsRefused checks the calls that come to nothing, and cost no link.
func (x *session) callsRefused(c drivers.Caller) error {
	no := errors.New("not these")
	var wrong *broken
	if _, _, err := x.call(c, x.Calls.Method, no); !errors.Is(err, no) || errors.Is(err, drivers.ErrLink) || errors.As(err, &wrong) {
		return fmt.Errorf("Call whose arguments are refused returns %w; want that error", err)
	}
	for _, m := range append([]drivers.Method{x.Calls.Missing}, x.Calls.Impossible...) {
		if _, given, err := x.call(c, m, nil); err == nil || given > 0 || errors.Is(err, drivers.ErrLink) {
			return fmt.Errorf("Call of a method that is not there asks for arguments %d times and returns: %w", given, err)
		}
	}
	for _, m := range x.Calls.Impossible {
		if c.CheckMethod(m) == nil {
			return fmt.Errorf("CheckMethod %+v returns no error", m)
		}
	}
	return nil
}

func checkCallDown(s *Suite) error {
	x, err := s.open()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	c, err := able[drivers.Caller](x, "Calls")
	if err != nil {
		return err
	}
	if _, given, err := x.call(c, s.Calls.Method, nil); !errors.Is(err, drivers.ErrLink) || given > 0 {
		return fmt.Errorf("Call before Connect asks for arguments %d times and returns %w; want drivers.ErrLink", given, err)
	}
	if err := x.connect(); err != nil {
		return err
	}
	s.Down()
	defer s.Up()
	if _, _, err := x.call(c, s.Calls.Method, nil); !errors.Is(err, drivers.ErrLink) {
		return fmt.Errorf("Call to a device that is down returns %w; want drivers.ErrLink", err)
	}
	return nil
}
