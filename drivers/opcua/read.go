package opcua

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// Bounds of reading.
const (
	defaultNodes = 500      // nodes a request, when the server states no limit
	maxNodes     = 1000     // nodes a request, whatever the server allows
	maxRequest   = 48 << 10 // bytes of node ids a request: it stays one chunk of 64 KB
	maxRefusals  = 24       // requests of one Read that may be refused and split; enough to find two nodes in 1000
	asideTime    = 10 * time.Second
)

// Read polls one group: drivers.Driver.
func (d *driver) Read(ctx context.Context, ref drivers.Ref, dst []telemetry.Reading) (out []telemetry.Reading, err error) {
	if d.link == nil {
		return dst, errors.New("not connected")
	}
	defer func() {
		if err != nil {
			out = dst
		}
		if d.link != nil {
			d.link.dead = d.link.dead || err != nil
			d.link.asked.Trim()
		}
	}()
	defer caught(&err)
	if d.link.expired() && !d.feed.running() {
		if err := d.Connect(ctx); err != nil {
			return dst, err
		}
	}
	g := &d.groups[ref.Device][ref.Group]
	out = slices.Grow(dst, len(g.tags))[:len(dst)+len(g.tags)]
	readings := out[len(dst):]
	if err := d.search(ctx, g, time.Now()); err != nil {
		return dst, err
	}
	if err := d.register(ctx, g); err != nil {
		return dst, err
	}
	g.unanswered(readings)
	if err := d.together(ctx, g, readings); err != nil {
		return dst, err
	}
	if err := d.aside(ctx, g, readings); err != nil {
		return dst, err
	}
	if err := d.explain(ctx, g, readings); err != nil {
		return dst, err
	}
	g.spread(readings)
	if err := d.seekNamespaces(ctx, g, readings, time.Now()); err != nil {
		return dst, err
	}
	if now := time.Now(); g.about.due(now) {
		d.link.types.details(ctx, g, now)
	}
	return out, nil
}

// together reads the nodes of the group in as few requests as the server takes. A request that fails
// for its size or for one of its values is halved until it succeeds, or until the one node is
// found, which is set aside.
func (d *driver) together(ctx context.Context, g *group, readings []telemetry.Reading) error {
	limit, refusals, found, size := d.most, 0, false, true
	for at := 0; at < len(g.ask.nodes); {
		n := g.fit(g.ask.tags[at:], limit, min(maxRequest, d.link.channel.Request()/2))
		err := d.readNodes(ctx, g, at, n, readings)
		switch {
		case err == nil:
			at += n
			continue
		case !splittable(err):
			return err
		case n == 1:
			g.setAside(g.ask.tags[at], err.Error())
			limit, found = d.most, true // the limit shrank in search of this node
			at++
		case refusals < maxRefusals:
			limit = n / 2
		default:
			fail(g, at, n, readings, err)
			limit = d.most
			at += n
		}
		refusals++
		size = size && tooMuch(err)
	}
	if found || g.ask.handles.stale {
		g.ask.handles.stale = false
		g.build()
	} else if size {
		d.most = limit
	}
	return nil
}

// fail answers for nodes that are not worth another request in this poll.
func fail(g *group, at, n int, readings []telemetry.Reading, err error) {
	reason := err.Error()
	for _, tag := range g.ask.tags[at : at+n] {
		readings[tag] = telemetry.BadReading(tag, 0, reason)
	}
}

// readNodes reads n nodes from at on in one request.
func (d *driver) readNodes(ctx context.Context, g *group, at, n int, readings []telemetry.Reading) error {
	r, err := d.request(ctx, g.ask.nodes[at:at+n])
	if err != nil {
		return err
	}
	for _, tag := range g.ask.tags[at : at+n] {
		v := r.DataValue(0)
		if r.Err != nil {
			return r.Err
		}
		d.answer(ctx, g, tag, &v, readings)
		g.ask.handled(tag, ua.StatusCode(v.Status))
	}
	return nil
}

// answer puts the readings of a result where they belong.
func (d *driver) answer(ctx context.Context, g *group, tag int, v *wire.DataValue, readings []telemetry.Reading) {
	d.parts = d.readings(ctx, g, tag, v, d.parts[:0])
	for i := range d.parts {
		readings[d.parts[i].Tag] = d.parts[i]
	}
}

// request asks for nodes in one request and returns a reader before the first of their results. What stands
// behind the last is of no use and not looked at.
func (d *driver) request(ctx context.Context, nodes [][]byte) (reader, error) {
	r, err := d.link.call(ctx, id.ReadRequest_Encoding_DefaultBinary, id.ReadResponse_Encoding_DefaultBinary, encodeRead(nodes))
	if err != nil {
		return r, err
	}
	if n := r.Count(1); r.Err == nil && n != len(nodes) {
		return r, protocolError(fmt.Sprintf("the server answered with %d results for %d nodes", n, len(nodes)))
	}
	return r, r.Err
}

// converter turns results into readings. It belongs to one goroutine.
type converter struct {
	decode decoder
	texts  statusTexts
}

// readings turns one result into the readings of a tag and of those that are other parts of the same node, and appends them.
func (d *converter) readings(ctx context.Context, g *group, tag int, v *wire.DataValue, dst []telemetry.Reading) []telemetry.Reading {
	d.decode.ctx, d.decode.group, d.decode.tag = ctx, g, tag
	dst = append(dst, d.reading(tag, v, g.tags[tag].want))
	for _, other := range g.also[tag] {
		dst = append(dst, d.convert(other, v, g.tags[other].want))
	}
	return dst
}

// reading turns one result into a reading of it.
func (d *converter) reading(tag int, v *wire.DataValue, want wanted) telemetry.Reading {
	d.decode.grown = false
	return d.convert(tag, v, want)
}

// convert turns the result at hand into another reading of it.
func (d *converter) convert(tag int, v *wire.DataValue, want wanted) telemetry.Reading {
	status := ua.StatusCode(v.Status)
	r := telemetry.Reading{Tag: uint32(tag), Time: timeOf(v), Quality: qualityOf(status)}
	if r.Quality != telemetry.Good {
		r.Reason = d.texts.reason(status)
	}
	if r.Quality == telemetry.Bad {
		return r
	}
	value, reason := d.decode.also(v.Variant, want)
	if reason != "" {
		r.Quality, r.Reason = telemetry.Bad, reason
		return r
	}
	r.Value = value
	if want.part != nil && d.decode.nameless != "" && r.Quality == telemetry.Good {
		r.Quality, r.Reason = telemetry.Uncertain, d.decode.nameless
	}
	if g := d.decode.group; g != nil && r.Quality == telemetry.Good {
		if why := g.doubtOf(tag); why != "" {
			r.Quality, r.Reason = telemetry.Uncertain, why
		}
	}
	return r
}

// alone reads one node in a request of its own.
func (d *driver) alone(ctx context.Context, node []byte) (wire.DataValue, error) {
	r, err := d.request(ctx, [][]byte{node})
	if err != nil {
		return wire.DataValue{}, err
	}
	return r.DataValue(0), r.Err
}

// aside answers for the tags that are not read together. One node that was set aside is tried alone
// every asideTime; one that then succeeds is read with the others again.
func (d *driver) aside(ctx context.Context, g *group, readings []telemetry.Reading) error {
	now := time.Now()
	for tag, reason := range g.ask.reasons {
		if reason != "" && reason != shared {
			readings[tag] = telemetry.BadReading(tag, 0, reason)
		}
	}
	if len(g.ask.aside) == 0 || now.Before(g.ask.retry) {
		return nil
	}
	g.ask.retry = now.Add(asideTime)
	tag := g.ask.aside[0]
	g.ask.aside = append(g.ask.aside[1:], tag)
	v, err := d.alone(ctx, g.ask.ids[tag])
	switch {
	case err == nil:
		d.answer(ctx, g, tag, &v, readings)
		g.rejoin(tag)
	case !splittable(err):
		return err
	}
	return nil
}
