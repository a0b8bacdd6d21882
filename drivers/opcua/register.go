package opcua

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/telemetry"
)

// maxHandle bounds the node id that a server gives in place of another, in bytes.
const maxHandle = 1024

// handles are the node ids that a server has given in place of those of a group's tags, for this session: it finds a node by them without
// looking it up (RegisterNodes, OPC 10000-4, 5.8.5).
type handles struct {
	asks  [][]byte // of each tag, as plan.ids has them; nil = it has none yet, empty = it is to have none
	done  bool     // whatever can have one has
	stale bool     // one of them is no good any more
}

// register asks for handles of the nodes that have none yet, when the config wants that. A server that refuses is the same session through read
// by the nodes' own ids.
func (d *driver) register(ctx context.Context, g *group) error {
	h := &g.ask.handles
	if !d.set.register || h.done || d.unregistered.Load() != nil || d.lost.often(anyHandle) {
		return nil
	}
	if h.asks == nil {
		h.asks = make([][]byte, len(g.tags))
	}
	var want []int
	for _, tag := range g.ask.tags {
		if h.asks[tag] == nil {
			want = append(want, tag)
		}
	}
	for limit := d.handles; len(want) > 0; {
		n := g.fit(want, limit, min(maxRequest, d.link.channel.Request()/2))
		err := d.registerSome(ctx, g, want[:n])
		var refused statusError
		switch {
		case err == nil:
			want = want[n:]
		case n > 1 && splittable(err):
			limit = n / 2
		case splittable(err), errors.As(err, &refused):
			reason := fmt.Sprintf("the server does not register %s, which are read by their own ids: %v", telemetry.Count(len(want), "node"), err)
			d.unregistered.Store(&reason)
			g.build() // with the handles that it has given
			return nil
		default:
			lost := d.link.channel.Err()
			d.lost.note(anyHandle, lost)
			if lost != nil {
				err = over(err, anyHandle)
			}
			return err
		}
	}
	d.lost.note(anyHandle, nil)
	h.done = true
	g.build()
	return nil
}

// registerSome asks for the handles of some tags in one request.
func (d *driver) registerSome(ctx context.Context, g *group, tags []int) error {
	r, err := d.link.call(ctx, id.RegisterNodesRequest_Encoding_DefaultBinary, id.RegisterNodesResponse_Encoding_DefaultBinary, func(b []byte) ([]byte, error) {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(tags)))
		for _, tag := range tags {
			b = append(b, askedNode(g.ask.ids[tag])...)
		}
		return b, nil
	})
	if err != nil {
		return err
	}
	if n := r.Count(2); r.Err == nil && n != len(tags) {
		return protocolError(fmt.Sprintf("the server answered with %d handles for %d nodes", n, len(tags)))
	}
	for _, tag := range tags {
		node := r.rawNodeID()
		if r.Err != nil {
			return r.Err
		}
		ask := []byte{}
		if len(node) <= maxHandle {
			ask = attributeOf(node, ua.AttributeIDValue)
		}
		g.ask.handles.asks[tag] = ask
	}
	return nil
}

// ask returns what is asked for to read a tag's node.
func (p *plan) ask(tag int) []byte {
	if h := p.handles.asks; h != nil && len(h[tag]) > 0 {
		return h[tag]
	}
	return p.ids[tag]
}

// handled takes the status of a node that was read. One that the server does not know by its handle is read by its own id from the next poll on.
func (p *plan) handled(tag int, status ua.StatusCode) {
	if h := &p.handles; h.asks != nil && len(h.asks[tag]) > 0 && noSuchNode(status) {
		h.asks[tag], h.stale = []byte{}, true
	}
}
