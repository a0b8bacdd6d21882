package drivertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// checkCut: after the peer ended the connection a Read either mends it or says so by an error that drivers.IsClosed
// knows, so that the poller can connect again within the same poll.
func checkCut(s *Suite) error {
	x, err := s.connected()
	if err != nil {
		return err
	}
	defer x.driver.Close()
	ctx := context.Background()
	if _, err := x.read(ctx, drivers.Ref{}); err != nil {
		return fmt.Errorf("Read: %w", err)
	}
	s.Down()
	s.Up()
	time.Sleep(20 * time.Millisecond) // the end has come to this side
	if _, err = x.read(ctx, drivers.Ref{}); err == nil {
		return nil
	}
	if !drivers.IsClosed(err) {
		return fmt.Errorf("Read after the device cut the connection: %q is not drivers.ErrClosed, or what drivers.IsClosed knows beside it", err)
	}
	if err := errors.Join(x.close(), x.connect()); err != nil {
		return err
	}
	if _, err := x.read(ctx, drivers.Ref{}); err != nil {
		return fmt.Errorf("Read on the new connection: %w", err)
	}
	return nil
}

func checkSubscribe(s *Suite) error {
	x, err := s.open()
	if err != nil {
		return err
	}
	sub, ok := x.driver.(drivers.Subscriber)
	if !ok {
		return nil
	}
	defer x.driver.Close()
	for _, end := range []struct {
		how string
		end func()
	}{
		{"the device went down", s.Down},
		{"Close", func() { _ = x.close() }},
	} {
		s.Up()
		if err := x.connect(); err != nil {
			return err
		}
		if err := x.pushes(sub, end.how, end.end); err != nil {
			return err
		}
		_ = x.close()
	}
	s.Up()
	return x.subscribeEnded(sub)
}

// pushes subscribes every group, waits for a reading of each tag and ends the link.
func (x *session) pushes(sub drivers.Subscriber, how string, end func()) error {
	wanted := map[drivers.Ref]map[uint32]bool{}
	ctx, cancel := context.WithTimeout(context.Background(), x.Soon)
	defer cancel()
	err := x.refs(func(g drivers.Ref) error {
		pushed, err := sub.Subscribe(ctx, g)
		if err != nil {
			return fmt.Errorf("Subscribe to %v: %w", g, err)
		}
		if pushed {
			wanted[g] = map[uint32]bool{}
			for i := range x.tags(g) {
				wanted[g][uint32(i)] = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	c := sub.Pushed()
	if c == nil {
		return errors.New("Pushed returns nil while connected")
	}
	if err := x.collect(c, wanted); err != nil {
		return err
	}
	end()
	return x.channelEnds(c, how)
}

func (s *Suite) tags(g drivers.Ref) []telemetry.Tag {
	return s.Connection.Devices[g.Device].Groups[g.Group].Tags
}

// collect takes pushes until each wanted tag has come.
func (x *session) collect(c <-chan drivers.Push, wanted map[drivers.Ref]map[uint32]bool) error {
	late := time.After(x.Soon)
	for len(wanted) > 0 {
		select {
		case p, ok := <-c:
			if !ok {
				return errors.New("the channel of pushes was closed while the device was up")
			}
			if err := x.checkPush(&p, wanted); err != nil {
				return err
			}
		case <-late:
			return fmt.Errorf("not pushed within %v: %v", x.Soon, wanted)
		}
	}
	return nil
}

func (x *session) checkPush(p *drivers.Push, wanted map[drivers.Ref]map[uint32]bool) error {
	g := p.Group
	if g.Device < 0 || g.Device >= len(x.Connection.Devices) || g.Group < 0 || g.Group >= len(x.Connection.Devices[g.Device].Groups) {
		return fmt.Errorf("push of group %v, which does not exist", g)
	}
	if p.Lost < 0 {
		return fmt.Errorf("push of group %v: %d lost", g, p.Lost)
	}
	for i := range p.Readings {
		r := &p.Readings[i]
		if int(r.Tag) >= len(x.tags(g)) {
			return fmt.Errorf("push of group %v: reading of tag %d of %d", g, r.Tag, len(x.tags(g)))
		}
		if err := checkReading(r); err != nil {
			return fmt.Errorf("push of group %v: %w", g, err)
		}
		delete(wanted[g], r.Tag)
	}
	if len(wanted[g]) == 0 {
		delete(wanted, g)
	}
	return nil
}

// channelEnds waits for the end of the channel, behind what still stands in it.
func (x *session) channelEnds(c <-chan drivers.Push, how string) error {
	late := time.After(x.Soon)
	for {
		select {
		case _, ok := <-c:
			if !ok {
				return nil
			}
		case <-late:
			return fmt.Errorf("the channel of pushes is not closed within %v after %s", x.Soon, how)
		}
	}
}

func (x *session) subscribeEnded(sub drivers.Subscriber) error {
	if err := x.connect(); err != nil {
		return err
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	return x.soon("Subscribe with an ended context", func() error {
		if pushed, err := sub.Subscribe(ended, drivers.Ref{}); pushed && err == nil {
			return errors.New("Subscribe with an ended context returns no error")
		}
		return nil
	})
}
