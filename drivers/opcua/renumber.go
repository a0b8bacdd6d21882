package opcua

import (
	"context"
	"slices"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/telemetry"
)

// A server may number its namespaces anew within a session. Addresses with a namespace's URI then ask for nodes that are no more, or another's; a new session looks
// them up. That is looked for when nodes are unknown, as often as such nodes are tried again.

// renumberedError ends a session whose namespaces are not what they were.
const renumberedError = protocolError("the server numbers its namespaces in another way than at the connect; the addresses are looked up anew")

// renumbered reports whether the server's namespaces are not those that the session began with. What cannot be read is as it was.
func (f *finder) renumbered(ctx context.Context, c *converter) (bool, error) {
	ask, err := valueOf(ua.NewNumericNodeID(0, id.Server_NamespaceArray))
	if err != nil || f.names == nil {
		return false, err
	}
	r, err := f.call(ctx, id.ReadRequest_Encoding_DefaultBinary, id.ReadResponse_Encoding_DefaultBinary, encodeRead([][]byte{ask}))
	if err != nil {
		return false, unlessRefused(err)
	}
	if r.Count(1) != 1 {
		return false, nil
	}
	v := r.DataValue(0)
	if r.Err != nil {
		return false, nil
	}
	c.decode.ctx, c.decode.group = ctx, nil
	now := texts(c.reading(0, &v, wanted{}).Value)
	return len(now) > 0 && !slices.Equal(now, f.names), nil
}

// homeless reports whether the server had no namespace of a tag's URI at the connect.
func (g *group) homeless(tag int) bool {
	reason := g.ask.reasons[tag]
	return g.ask.ids[tag] == nil && reason != "" && reason != shared && !g.isLost(tag)
}

// seekNamespaces opens a new session when nodes of a polled group are unknown because the server has numbered its namespaces anew. The next poll has their values.
func (d *driver) seekNamespaces(ctx context.Context, g *group, readings []telemetry.Reading, now time.Time) error {
	if now.Before(d.seek) || !slices.ContainsFunc(readings, func(r telemetry.Reading) bool { return r.Quality == telemetry.Bad && d.unknown(g, &r) }) {
		return nil
	}
	d.seek = now.Add(asideTime)
	moved, err := d.finder.renumbered(ctx, &d.converter)
	switch {
	case err != nil || !moved:
		return err
	case d.feed.running(): // others are pushed, and told of a gap
		return renumberedError
	}
	return d.Connect(ctx)
}

func (d *driver) unknown(g *group, r *telemetry.Reading) bool {
	return r.Reason == d.texts.reason(ua.StatusBadNodeIDUnknown) || r.Reason == d.texts.reason(ua.StatusBadNodeIDInvalid) || g.homeless(int(r.Tag)) || g.isLost(int(r.Tag))
}
