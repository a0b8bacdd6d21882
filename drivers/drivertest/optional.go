package drivertest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// The checks of what a driver may be besides, subscribe.go apart. Each passes where the driver is not, unless the suite
// says that it is.

// write writes and checks all that holds for every answer.
func (x *session) write(ctx context.Context, w drivers.Writer, ws []drivers.Write) ([]error, error) {
	var errs []error
	err := x.soon("Write", func() error {
		errs = w.Write(ctx, ws)
		return nil
	})
	if err == nil && errs != nil && len(errs) != len(ws) {
		err = fmt.Errorf("Write returns %d errors for %d writes; want one each, or nil", len(errs), len(ws))
	}
	if errs == nil {
		errs = make([]error, len(ws))
	}
	return errs, err
}

// able returns the driver as what it has to be because of a field of the suite.
func able[T any](x *session, field string) (T, error) {
	driver, ok := x.driver.(T)
	if !ok {
		return driver, fmt.Errorf("the suite has %s, the driver is no %v", field, reflect.TypeFor[T]())
	}
	return driver, nil
}

func checkWrite(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	w, err := able[drivers.Writer](x, "Writes")
	if err != nil {
		return err
	}
	if c, ok := x.driver.(drivers.WriteChecker); ok {
		for _, one := range s.Writes {
			if err := errors.Join(c.CheckWrite(one), c.CheckWrite(drivers.Write{Group: one.Group, Tag: one.Tag})); err != nil {
				return fmt.Errorf("CheckWrite %+v, which the device takes: %w", one, err)
			}
		}
	}
	// Those that are refused stand first, so that one which costs the others is seen.
	errs, err := x.write(context.Background(), w, slices.Concat(s.Refused, s.Writes))
	if err != nil {
		return err
	}
	for i, err := range errs {
		switch refused := i < len(s.Refused); {
		case refused && err == nil:
			return fmt.Errorf("Write %+v returns no error; the device refuses it", s.Refused[i])
		case refused && errors.Is(err, drivers.ErrLink):
			return fmt.Errorf("Write %+v: a refusal is no lost link: %w", s.Refused[i], err)
		case !refused && err != nil:
			return fmt.Errorf("Write %+v: %w", s.Writes[i-len(s.Refused)], err)
		}
	}
	if err := x.writeTypes(); err != nil {
		return err
	}
	return x.readBack()
}

// writeTypes checks that a driver which says what a tag takes says what was written.
func (x *session) writeTypes() error {
	t, ok := x.driver.(drivers.WriteTyper)
	if !ok {
		return nil
	}
	for _, w := range x.Writes {
		typ, array, err := t.WriteType(context.Background(), w.Group, w.Tag)
		if err != nil {
			return fmt.Errorf("WriteType of tag %d of %v: %w", w.Tag, w.Group, err)
		}
		if isArray := w.Value.Kind == telemetry.KindArray; array != isArray || !isArray && typ.Kind() != w.Value.Kind {
			return fmt.Errorf("WriteType of tag %d of %v is %v (array: %v); it took %+v", w.Tag, w.Group, typ, array, w.Value)
		}
	}
	return nil
}

// readBack checks that each write shows in a reading.
func (x *session) readBack() error {
	for _, want := range x.Writes {
		readings, err := x.read(context.Background(), want.Group)
		if err != nil {
			return fmt.Errorf("Read after Write: %w", err)
		}
		if got := readings[want.Tag]; got.Value != want.Value {
			return fmt.Errorf("after Write %+v the tag reads %+v", want, got)
		}
	}
	return nil
}

func checkWriteDown(s *Suite) error {
	x, err := s.open()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	w, err := able[drivers.Writer](x, "Writes")
	if err != nil {
		return err
	}
	if err := x.writeFails(context.Background(), w, "before Connect"); err != nil {
		return err
	}
	if err := x.connect(); err != nil {
		return err
	}
	s.Down()
	defer s.Up()
	return x.writeFails(context.Background(), w, "to a device that is down")
}

func (x *session) writeFails(ctx context.Context, w drivers.Writer, when string) error {
	errs, err := x.write(ctx, w, x.Writes)
	if err != nil {
		return err
	}
	for i, err := range errs {
		if err == nil {
			return fmt.Errorf("Write %+v %s returns no error", x.Writes[i], when)
		}
	}
	if !errors.Is(errs[0], drivers.ErrLink) {
		return fmt.Errorf("Write %s: %q does not wrap drivers.ErrLink", when, errs[0])
	}
	if t, ok := x.driver.(drivers.WriteTyper); ok {
		if _, _, err := t.WriteType(ctx, x.Writes[0].Group, x.Writes[0].Tag); !errors.Is(err, drivers.ErrLink) {
			return fmt.Errorf("WriteType %s: %v does not wrap drivers.ErrLink", when, err)
		}
	}
	return nil
}

// maxBrowsed ends the walk through a device that is large.
const maxBrowsed = 10000

func checkBrowse(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	b, ok := x.driver.(drivers.Browser)
	if !ok {
		return nil
	}
	addresses, err := x.walk(b)
	if err != nil {
		return err
	}
	if len(addresses) == 0 {
		return errors.New("Browse finds nothing that can be read")
	}
	for _, want := range s.Browsable {
		if !addresses[want] {
			return fmt.Errorf("Browse does not find %q", want)
		}
	}
	return errors.Join(x.browseStops(b), x.browseEnded(b))
}

// walk browses from the root on and returns the addresses that it finds.
func (x *session) walk(b drivers.Browser) (map[string]bool, error) {
	addresses, seen, todo, nodes := map[string]bool{}, map[string]bool{"": true}, []string{""}, 0
	for len(todo) > 0 && nodes < maxBrowsed {
		parent := todo[0]
		todo = todo[1:]
		for n, err := range b.Browse(context.Background(), parent) {
			if err != nil {
				return nil, fmt.Errorf("Browse %q: %w", parent, err)
			}
			if nodes++; n.Name == "" || n.Address == "" && n.ID == "" {
				return nil, fmt.Errorf("Browse %q yields %+v; want a name, and an address or what to browse", parent, n)
			}
			if n.Address != "" {
				addresses[n.Address] = true
			}
			if n.ID != "" && !seen[n.ID] {
				seen[n.ID] = true
				todo = append(todo, n.ID)
			}
		}
	}
	return addresses, nil
}

// browseStops breaks off after the first node; the runtime panics when a Browser goes on then. The link is good after it.
func (x *session) browseStops(b drivers.Browser) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("Browse goes on after yield returned false: %v", p)
		}
	}()
	for range b.Browse(context.Background(), "") {
		break
	}
	if _, err := x.read(context.Background(), drivers.Ref{}); err != nil {
		return fmt.Errorf("Read after a Browse that was broken off: %w", err)
	}
	return nil
}

func (x *session) browseEnded(b drivers.Browser) error {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	return x.soon("Browse with an ended context", func() error {
		for _, err := range b.Browse(ended, "") {
			if err != nil {
				return nil
			}
		}
		return errors.New("Browse with an ended context yields no error")
	})
}

func checkHistory(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	h, ok := x.driver.(drivers.Historian)
	if !ok {
		return errors.New("the suite has a history, the driver is no drivers.Historian")
	}
	last, n := map[uint32]int64{}, 0
	err = h.History(context.Background(), drivers.Ref{}, s.HistoryFrom, s.HistoryTo, func(readings []telemetry.Reading) error {
		n += len(readings)
		return x.checkPast(readings, last)
	})
	if err != nil {
		return fmt.Errorf("History: %w", err)
	}
	if n == 0 {
		return errors.New("History emits nothing")
	}
	return x.historyEnds(h)
}

// checkPast checks a portion; last is the time of each tag's last reading before it.
func (x *session) checkPast(readings []telemetry.Reading, last map[uint32]int64) error {
	for i := range readings {
		r := &readings[i]
		before, seen := last[r.Tag]
		switch {
		case int(r.Tag) >= len(x.tags(drivers.Ref{})):
			return fmt.Errorf("reading of tag %d of %d", r.Tag, len(x.tags(drivers.Ref{})))
		case r.Time < x.HistoryFrom || r.Time >= x.HistoryTo:
			return fmt.Errorf("reading of tag %d of %d is not from %d to before %d", r.Tag, r.Time, x.HistoryFrom, x.HistoryTo)
		case seen && r.Time < before:
			return fmt.Errorf("reading of tag %d of %d comes after that of %d", r.Tag, r.Time, before)
		}
		if err := checkReading(r); err != nil {
			return err
		}
		last[r.Tag] = r.Time
	}
	return nil
}

// historyEnds checks that an error of emit and the end of ctx end it.
func (x *session) historyEnds(h drivers.Historian) error {
	enough, calls := errors.New("enough"), 0
	err := h.History(context.Background(), drivers.Ref{}, x.HistoryFrom, x.HistoryTo, func([]telemetry.Reading) error {
		calls++
		return enough
	})
	if !errors.Is(err, enough) || calls != 1 {
		return fmt.Errorf("History whose emit failed returns %v after %d calls; want emit's error after 1", err, calls)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	return x.soon("History with an ended context", func() error {
		if h.History(ended, drivers.Ref{}, x.HistoryFrom, x.HistoryTo, func([]telemetry.Reading) error { return nil }) == nil {
			return errors.New("History with an ended context returns no error")
		}
		return nil
	})
}

func checkTypes(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	t, ok := x.driver.(drivers.Typed)
	if !ok {
		return nil
	}
	return s.refs(func(g drivers.Ref) error {
		types := t.DataTypes(g)
		if len(types) != len(s.tags(g)) {
			return fmt.Errorf("%d data types for the %d tags of %v", len(types), len(s.tags(g)), g)
		}
		readings, err := x.read(context.Background(), g)
		if err != nil {
			return fmt.Errorf("Read of %v: %w", g, err)
		}
		for i := range readings {
			if kind := readings[i].Value.Kind; types[i] != telemetry.AnyType && kind != telemetry.KindNone && types[i].Kind() != kind {
				return fmt.Errorf("tag %d of %v is a %v by its data type, and has a value of kind %d", i, g, types[i], kind)
			}
		}
		return nil
	})
}

// checkEvents holds the readings of tags of events against what they may be: texts, or bad.
func checkEvents(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	e, ok := x.driver.(drivers.Eventful)
	if !ok {
		return nil
	}
	return s.refs(func(g drivers.Ref) error {
		tags := e.Events(g)
		readings, err := x.read(context.Background(), g)
		if err != nil {
			return fmt.Errorf("Read of %v: %w", g, err)
		}
		for i, tag := range tags {
			switch {
			case tag < 0 || tag >= len(readings) || i > 0 && tag <= tags[i-1]:
				return fmt.Errorf("tags of events %v of %v: they are to be of its %d, and ascending", tags, g, len(readings))
			case readings[tag].Quality < telemetry.Bad && readings[tag].Value.Kind != telemetry.KindString:
				return fmt.Errorf("tag %d of %v is of events, and has a value of kind %d", tag, g, readings[tag].Value.Kind)
			}
		}
		return nil
	})
}

// checkSizes holds the texts that the device has against what the driver says of their length.
func checkSizes(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	sized, ok := x.driver.(drivers.Sized)
	if !ok {
		return nil
	}
	return s.refs(func(g drivers.Ref) error {
		sizes := sized.TextSizes(g)
		if len(sizes) != len(s.tags(g)) {
			return fmt.Errorf("%d text sizes for the %d tags of %v", len(sizes), len(s.tags(g)), g)
		}
		readings, err := x.read(context.Background(), g)
		if err != nil {
			return fmt.Errorf("Read of %v: %w", g, err)
		}
		for i, r := range readings {
			if n := len(r.Value.Text); r.Value.Kind == telemetry.KindString && sizes[i] > 0 && n > sizes[i] {
				return fmt.Errorf("the text of tag %d of %v has %d bytes, and the driver says %d at most", i, g, n, sizes[i])
			}
		}
		return nil
	})
}
