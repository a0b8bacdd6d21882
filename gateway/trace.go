package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"millrace/drivers"
	"millrace/gateway/web"
)

// watched is who looks at what goes over a line. While nobody does, the driver shows nothing.
type watched struct {
	tracer drivers.Tracer // nil = the driver cannot
	mu     sync.Mutex
	eyes   []*eye
	over   bool // the connection has ended
}

// eye is one who looks: a bounded queue, and how many exchanges did not fit in.
type eye struct {
	queue chan web.Exchange
	lost  int
}

const (
	maxEyes  = 4   // on one line
	maxQueue = 256 // exchanges
)

// Trace shows what goes over the line of a device: see web.Gateway.
func (g *Gateway) Trace(ctx context.Context, device string) (<-chan web.Exchange, error) {
	conn := g.connectionOf(device)
	if conn == nil {
		return nil, fmt.Errorf("trace %q: the gateway has no such device; `millrace values` shows them", device)
	}
	e, err := conn.watched.add()
	if err != nil {
		return nil, fmt.Errorf("trace %q: %w", device, err)
	}
	context.AfterFunc(ctx, func() { conn.watched.remove(e) })
	return e.queue, nil
}

// connectionOf returns the connection of a device, nil for none.
func (g *Gateway) connectionOf(device string) *connection {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.running.connections {
		if slices.ContainsFunc(c.devices, func(d deviceConfig) bool { return d.name == device }) {
			return c
		}
	}
	return nil
}

func (w *watched) add() (*eye, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tracer == nil {
		return nil, errors.New("its driver shows no exchanges")
	}
	if w.over {
		return nil, errors.New("its connection is being exchanged; try again")
	}
	if len(w.eyes) >= maxEyes {
		return nil, fmt.Errorf("%d others look at this line already", maxEyes)
	}
	e := &eye{queue: make(chan web.Exchange, maxQueue)}
	w.eyes = append(w.eyes, e)
	w.tracer.Trace(w.show)
	return e, nil
}

// end ends all eyes with their connection.
func (w *watched) end() {
	w.mu.Lock()
	eyes := slices.Clone(w.eyes)
	w.over = true
	w.mu.Unlock()
	for _, e := range eyes {
		w.remove(e)
	}
}

// remove ends an eye; it may be called again.
func (w *watched) remove(e *eye) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.Index(w.eyes, e)
	if i < 0 {
		return
	}
	w.eyes = slices.Delete(w.eyes, i, i+1)
	close(e.queue)
	if len(w.eyes) == 0 {
		w.tracer.Trace(nil)
	}
}

// show gives an exchange to all who look and have room. The driver's goroutine calls it.
func (w *watched) show(x *drivers.Exchange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.eyes {
		out := web.Exchange{At: x.At.UnixMicro(), Took: x.Took.Microseconds(), Request: slices.Clone(x.Request), Answer: slices.Clone(x.Answer),
			Reason: x.Reason, Raw: slices.Clone(x.Raw), Lost: e.lost}
		select {
		case e.queue <- out:
			e.lost = 0
		default:
			e.lost++
		}
	}
}
