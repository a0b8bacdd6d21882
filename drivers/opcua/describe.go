package opcua

import (
	"bytes"
	"cmp"
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
	askedAtOnce    = 200 // questions: a unit, a range or a description of a tag
	describeEvery  = time.Second
	maxUnit        = 64  // bytes that are kept of a unit
	maxDescription = 256 // bytes that are kept of a description
	maxLapses      = 3   // links that may be lost while a server is asked; it may be the asking that it does not bear
)

// describing is what the server says of a group's tags, as far as it has been asked for. It belongs to whom the group's values belong to.
type describing struct {
	next time.Time // when to go on
	at   int       // the place of the first question that has not been asked, see questions
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

// saying is what a server may say of a variable.
type saying int

const (
	sayUnit saying = iota
	sayRange
	sayDescription
	sayings
)

// property is the name of the property that holds what a server says (OPC 10000-8, 5.3.2.3); "" = it is an attribute.
func (s saying) property() string { return [sayings]string{"EngineeringUnits", "EURange", ""}[s] }

// question is one thing to ask about one tag.
type question struct {
	tag int
	saying
}

// questions returns the next ones to ask, and the place behind the last of them. A place is a tag's index times sayings, and a saying.
func (g *group) questions(most int) (all []question, behind int) {
	for behind = g.about.at; behind < len(g.tags)*int(sayings) && len(all) < most; behind++ {
		q := question{behind / int(sayings), saying(behind % int(sayings))}
		if g.tags[q.tag].unsaid[q.saying] && g.ask.ids[q.tag] != nil {
			all = append(all, q)
		}
	}
	return all, behind
}

// details asks the next questions about a group. What a server refuses is not known; what was not answered is asked for in the next session.
func (t *types) details(ctx context.Context, g *group, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g.about.next = now.Add(describeEvery)
	t.until = now.Add(maxLookup * t.link.timeout)
	all, behind := g.questions(max(min(askedAtOnce, t.most), 1))
	if len(all) == 0 || t.lapses.Load() >= maxLapses {
		g.about.over = true
		if g.about.all != nil {
			all := g.about.all
			g.about.all = nil
			g.about.told.Store(&all)
		}
		return
	}
	err := t.askAbout(ctx, g, all)
	switch {
	case t.link.channel.Err() != nil:
		t.lapses.Add(1)
	case err != nil && tooMuch(err) && len(all) > 1:
		t.most = len(all) / 2
	default:
		g.about.at = behind
	}
}

// askAbout asks some questions: first for the nodes of properties, then for their values and for attributes.
func (t *types) askAbout(ctx context.Context, g *group, all []question) error {
	var sought []property
	for _, q := range all {
		if name := q.property(); name != "" {
			sought = append(sought, property{askedNode(g.ask.ids[q.tag]), name})
		}
	}
	nodes, err := t.properties(ctx, sought)
	if err != nil {
		return err
	}
	var asks [][]byte
	var asked []question
	for _, q := range all {
		switch {
		case q.property() == "":
			asks, asked = append(asks, attributeOf(askedNode(g.ask.ids[q.tag]), ua.AttributeIDDescription)), append(asked, q)
			continue
		case nodes[0] != nil:
			asks, asked = append(asks, attributeOf(nodes[0], ua.AttributeIDValue)), append(asked, q)
		}
		nodes = nodes[1:]
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
	for _, q := range asked {
		if v := r.DataValue(0); v.Status>>31 == 0 && r.Err == nil {
			g.hear(q, v.Variant)
		}
	}
	return nil
}

// hear takes the answer to a question, a variant.
func (g *group) hear(q question, variant []byte) {
	var d telemetry.Details
	switch q.saying {
	case sayUnit:
		d.Unit = unitIn(variant)
	case sayRange:
		d.Range = rangeIn(variant)
	case sayDescription:
		d.Description = descriptionIn(variant)
	}
	if d == (telemetry.Details{}) {
		return
	}
	if g.about.all == nil {
		g.about.all = make([]telemetry.Details, len(g.tags))
	}
	all := &g.about.all[q.tag]
	all.Unit, all.Description = cmp.Or(d.Unit, all.Unit), cmp.Or(d.Description, all.Description)
	all.Range = cmp.Or(d.Range, all.Range)
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

// rangeIn returns the range that a variant with a Range has, none for another, and for one that is empty or not finite.
func rangeIn(variant []byte) telemetry.Range {
	r := newReader(variant)
	if len(variant) == 0 || r.U8() != wire.TypeExtensionObject {
		return telemetry.Range{}
	}
	number, body := r.extension()
	got := telemetry.Range{Low: body.F64(), High: body.F64()}
	if number != id.Range_Encoding_DefaultBinary || body.Err != nil || !got.Known() {
		return telemetry.Range{}
	}
	return got
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

// property names a property of an encoded node.
type property struct {
	of   []byte
	name string
}

// properties returns the nodes of properties, nil where there is none.
func (t *types) properties(ctx context.Context, sought []property) ([][]byte, error) {
	nodes := make([][]byte, len(sought))
	if len(sought) == 0 || t.untranslated {
		return nodes, nil
	}
	r, err := t.ask(ctx, id.TranslateBrowsePathsToNodeIDsRequest_Encoding_DefaultBinary, id.TranslateBrowsePathsToNodeIDsResponse_Encoding_DefaultBinary,
		func(b []byte) ([]byte, error) {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(sought)))
			for _, p := range sought {
				b = appendPropertyPath(append(b, p.of...), p.name)
			}
			return b, nil
		})
	if err != nil {
		if !tooMuch(err) && t.link.channel.Err() == nil { // it does not do that
			t.untranslated = true
			err = nil
		}
		return nodes, err
	}
	if r.Count(1) != len(sought) {
		return nodes, nil
	}
	for i := range nodes {
		r.U32() // status: without a node there is none
		for n := r.Count(1); n > 0 && r.Err == nil; n-- {
			from := r.B
			node := r.ExpandedNodeID()
			raw := from[:len(from)-len(r.B)]
			if r.U32(); node.URI == nil && node.Server == 0 && len(raw) <= maxIdentifier && r.Err == nil {
				nodes[i] = bytes.Clone(raw)
			}
		}
	}
	return nodes, nil
}

// appendPropertyPath appends the relative path to a property of namespace 0 (OPC 10000-4, 7.31).
func appendPropertyPath(b []byte, name string) []byte {
	b = append(b, 1, 0, 0, 0, 0, id.HasProperty, 0, 1, 0, 0) // one element: forward, with subtypes, a name in namespace 0
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(name))), name...)
}
