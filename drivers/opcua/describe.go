package opcua

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// What a server says of its variables is asked for once, a few at a time beside their values, which come first.
const (
	describedAtOnce = 100
	describeEvery   = time.Second
	maxUnit         = 64  // bytes that are kept of a unit
	maxDescription  = 256 // bytes that are kept of a description
	maxLapses       = 3   // links that may be lost while a server is asked; it may be the asking that it does not bear
)

// describing is what the server says of a group's tags, as far as it has been asked for. It belongs to whom the group's values belong to.
type describing struct {
	next time.Time // when to go on
	at   int       // the first tag that has not been asked about
	over bool
	all  []telemetry.Details                 // nil = nothing yet
	told atomic.Pointer[[]telemetry.Details] // what waits to be taken
}

// Details returns what the server says of the group's tags, once: drivers.Describer.
func (d *driver) Details(ref drivers.Ref) []telemetry.Details {
	if all := d.groups[ref.Device][ref.Group].about.told.Swap(nil); all != nil {
		return *all
	}
	return nil
}

// due reports whether it is time to ask on.
func (a *describing) due(now time.Time) bool { return !a.over && !now.Before(a.next) }

// describes returns the next tags to ask about, and the tag behind the last of them.
func (g *group) describes(most int) (tags []int, behind int) {
	for behind = g.about.at; behind < len(g.tags) && len(tags) < most; behind++ {
		t := &g.tags[behind]
		if (t.unitless || t.undescribed) && g.ask.ids[behind] != nil {
			tags = append(tags, behind)
		}
	}
	return tags, behind
}

// details asks about the next tags of a group. What a server refuses is not known; what was not answered is asked for in the next session.
func (t *types) details(ctx context.Context, g *group, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g.about.next = now.Add(describeEvery)
	t.until = now.Add(maxLookup * t.link.timeout)
	tags, behind := g.describes(max(min(describedAtOnce, t.most/2), 1))
	if len(tags) == 0 || t.lapses.Load() >= maxLapses {
		g.about.over = true
		if g.about.all != nil {
			all := g.about.all
			g.about.all = nil
			g.about.told.Store(&all)
		}
		return
	}
	err := t.askAbout(ctx, g, tags)
	switch {
	case t.link.channel.Err() != nil:
		t.lapses.Add(1)
	case err != nil && tooMuch(err) && len(tags) > 1:
		t.most = len(tags)
	default:
		g.about.at = behind
	}
}

// askAbout asks for units and descriptions of some tags.
func (t *types) askAbout(ctx context.Context, g *group, tags []int) error {
	units, err := t.unitsOf(ctx, g, tags)
	if err != nil {
		return err
	}
	var asks [][]byte
	var found []saidOf
	for i, tag := range tags {
		if units[i] != nil {
			asks = append(asks, attributeOf(units[i], ua.AttributeIDValue))
			found = append(found, saidOf{tag: tag, unit: true})
		}
		if g.tags[tag].undescribed {
			asks = append(asks, attributeOf(askedNode(g.ask.ids[tag]), ua.AttributeIDDescription))
			found = append(found, saidOf{tag: tag})
		}
	}
	if len(asks) == 0 {
		return nil
	}
	r, err := t.ask(ctx, id.ReadRequest_Encoding_DefaultBinary, id.ReadResponse_Encoding_DefaultBinary, encodeRead(asks))
	if err != nil {
		return err
	}
	if r.Count(1) != len(asks) {
		return nil
	}
	for _, f := range found {
		if v := r.DataValue(0); v.Status>>31 == 0 && r.Err == nil {
			f.put(g, v.Variant)
		}
	}
	return nil
}

// saidOf is one text of one tag that was asked for.
type saidOf struct {
	tag  int
	unit bool
}

func (f saidOf) put(g *group, variant []byte) {
	text := ""
	if f.unit {
		text = unitIn(variant)
	} else {
		text = descriptionIn(variant)
	}
	if text == "" {
		return
	}
	if g.about.all == nil {
		g.about.all = make([]telemetry.Details, len(g.tags))
	}
	if f.unit {
		g.about.all[f.tag].Unit = text
	} else {
		g.about.all[f.tag].Description = text
	}
}

// unitIn returns the unit that a variant with an EUInformation names, "" for another.
func unitIn(variant []byte) string {
	r := newReader(variant)
	if len(variant) == 0 || r.U8() != wire.TypeExtensionObject {
		return ""
	}
	number, body := r.extension()
	if number != id.EUInformation_Encoding_DefaultBinary {
		return ""
	}
	body.Bytes() // whose units
	body.U32()
	return cut(body.LocalizedText(), maxUnit)
}

// descriptionIn returns the text of a variant with a LocalizedText, "" for another.
func descriptionIn(variant []byte) string {
	r := newReader(variant)
	if len(variant) == 0 || r.U8() != wire.TypeLocalizedText {
		return ""
	}
	return cut(r.LocalizedText(), maxDescription)
}

// cut returns a text without what is no UTF-8, at most so many bytes of it.
func cut(b []byte, most int) string {
	return strings.TrimSpace(strings.ToValidUTF8(string(b[:min(len(b), most)]), ""))
}

// unitsOf returns the nodes that hold the units of tags, nil where there is none.
func (t *types) unitsOf(ctx context.Context, g *group, tags []int) ([][]byte, error) {
	units := make([][]byte, len(tags))
	var asked []int
	var nodes [][]byte
	for i, tag := range tags {
		if g.tags[tag].unitless {
			asked, nodes = append(asked, i), append(nodes, askedNode(g.ask.ids[tag]))
		}
	}
	found, err := t.unitNodes(ctx, nodes)
	for i, node := range found {
		units[asked[i]] = node
	}
	return units, err
}

// unitNodes returns the nodes that hold the units of encoded nodes (OPC 10000-8, 5.3.2.3), nil where there is none.
func (t *types) unitNodes(ctx context.Context, nodes [][]byte) ([][]byte, error) {
	units := make([][]byte, len(nodes))
	if len(nodes) == 0 || t.untranslated {
		return units, nil
	}
	r, err := t.ask(ctx, id.TranslateBrowsePathsToNodeIDsRequest_Encoding_DefaultBinary, id.TranslateBrowsePathsToNodeIDsResponse_Encoding_DefaultBinary,
		func(b []byte) ([]byte, error) {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(nodes)))
			for _, n := range nodes {
				b = appendPropertyPath(append(b, n...), "EngineeringUnits")
			}
			return b, nil
		})
	if err != nil {
		if !tooMuch(err) && t.link.channel.Err() == nil { // it does not do that
			t.untranslated = true
			err = nil
		}
		return units, err
	}
	if r.Count(1) != len(nodes) {
		return units, nil
	}
	for i := range nodes {
		r.U32() // status: without a node there is none
		for n := r.Count(1); n > 0 && r.Err == nil; n-- {
			from := r.B
			node := r.ExpandedNodeID()
			raw := from[:len(from)-len(r.B)]
			if r.U32(); node.URI == nil && node.Server == 0 && len(raw) <= maxIdentifier && r.Err == nil {
				units[i] = bytes.Clone(raw)
			}
		}
	}
	return units, nil
}

// appendPropertyPath appends the relative path to a property of namespace 0 (OPC 10000-4, 7.31).
func appendPropertyPath(b []byte, name string) []byte {
	b = append(b, 1, 0, 0, 0, 0, id.HasProperty, 0, 1, 0, 0) // one element: forward, with subtypes, a name in namespace 0
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(name))), name...)
}
