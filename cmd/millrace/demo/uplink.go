package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// uplink is the line between gateway and broker: a TCP relay on loopback that can be cut. While it is cut,
// connections end with a reset and new ones are reset at once.
type uplink struct {
	listener net.Listener
	broker   string

	mu      sync.Mutex
	conns   map[*net.TCPConn]struct{}
	cut     bool
	changed time.Time
	down    time.Duration // how long it was cut, without the cut under way
	cuts    int
	closed  bool
}

func newUplink(broker string) (*uplink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the uplink: %w", err)
	}
	return &uplink{listener: l, broker: broker, conns: map[*net.TCPConn]struct{}{}, changed: time.Now()}, nil
}

func (u *uplink) addr() string { return u.listener.Addr().String() }

// run relays until ctx ends and all its connections are closed.
func (u *uplink) run(ctx context.Context) {
	var relays sync.WaitGroup
	defer relays.Wait()
	defer u.close()
	stop := context.AfterFunc(ctx, func() { u.listener.Close() })
	defer stop()
	for {
		c, err := u.listener.Accept()
		if err != nil {
			return
		}
		relays.Go(func() { u.relay(c.(*net.TCPConn)) })
	}
}

func (u *uplink) relay(in *net.TCPConn) {
	defer in.Close()
	if !u.enter(in) {
		return
	}
	defer u.leave(in)
	c, err := net.DialTimeout("tcp", u.broker, 2*time.Second)
	if err != nil {
		return
	}
	out := c.(*net.TCPConn)
	defer out.Close()
	if !u.enter(out) {
		return
	}
	defer u.leave(out)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(out, in) // either end may go at any time: that is what the demo shows
		_ = out.Close()
	}()
	_, _ = io.Copy(in, out)
	_ = in.Close()
	<-done
}

// enter makes c known to cutting; it refuses c while the uplink is cut or closed.
func (u *uplink) enter(c *net.TCPConn) bool {
	_ = c.SetLinger(0) // a cut is a reset, not a polite end
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.cut || u.closed {
		return false
	}
	u.conns[c] = struct{}{}
	return true
}

func (u *uplink) leave(c *net.TCPConn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.conns, c)
}

func (u *uplink) close() {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.reset()
}

func (u *uplink) reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.conns {
		_ = c.Close()
	}
}

// set cuts or mends the uplink; setting what it is already changes nothing.
func (u *uplink) set(cut bool) {
	u.mu.Lock()
	now := time.Now()
	if cut == u.cut {
		u.mu.Unlock()
		return
	}
	if !cut {
		u.down += now.Sub(u.changed)
	} else {
		u.cuts++
	}
	u.cut, u.changed = cut, now
	u.mu.Unlock()
	if cut {
		u.reset()
	}
}

// state reports whether the uplink is cut and since when it is or is not.
func (u *uplink) state() (cut bool, since time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.cut, u.changed
}

// outage returns how long the uplink was cut in all.
func (u *uplink) outage() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.cut {
		return u.down + time.Since(u.changed)
	}
	return u.down
}
