package opcua

import (
	"bytes"
	"cmp"
	"context"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

const (
	inspected    = 50 // nodes that are asked about at a time
	maxAttribute = 4  // attributes of a node that are asked for
)

// Children returns what is right below a node, "" for the Objects folder, with what the server says of each: its data type, unit, description, and what the
// user may do. A server that refuses to say that is none the worse.
func (c *Client) Children(ctx context.Context, parent string) (all []Child, err error) {
	defer caught(&err)
	if err := c.browse(ctx, parent, maxBrowsed, func(n Child) bool { all = append(all, n); return true }); err != nil {
		return nil, err
	}
	if err := c.learnPaths(ctx); err != nil {
		return all, err
	}
	for at := 0; at < len(all); {
		n := max(min(inspected, c.most/maxAttribute, c.finder.most, len(all)-at), 1)
		if err := c.inspect(ctx, all[at:at+n]); err != nil {
			return all, err
		}
		at += n
	}
	return all, nil
}

// inspect asks about some nodes; where the server refuses, about fewer.
func (c *Client) inspect(ctx context.Context, some []Child) error {
	err := cmp.Or(c.inspectAttributes(ctx, some), c.inspectUnits(ctx, some))
	switch {
	case err == nil:
		return nil
	case unlessRefused(err) != nil:
		return err
	case len(some) == 1:
		return nil
	case tooMuch(err):
		c.most = max(c.most/2, maxAttribute)
	}
	half := len(some) / 2
	return cmp.Or(c.inspect(ctx, some[:half]), c.inspect(ctx, some[half:]))
}

// attributesOf are what is asked of a node, besides its description.
var attributesOf = map[string][]ua.AttributeID{
	"variable": {ua.AttributeIDDataType, ua.AttributeIDValueRank, ua.AttributeIDUserAccessLevel},
	"method":   {ua.AttributeIDUserExecutable},
	"object":   {ua.AttributeIDEventNotifier},
}

// askedAttribute is an attribute of a node.
type askedAttribute struct {
	of        *Child
	attribute ua.AttributeID
}

func (c *Client) inspectAttributes(ctx context.Context, some []Child) error {
	var asks [][]byte
	var asked []askedAttribute
	for i := range some {
		n := &some[i]
		if n.node == nil {
			continue
		}
		for _, a := range append([]ua.AttributeID{ua.AttributeIDDescription}, attributesOf[n.Class]...) {
			asks, asked = append(asks, attributeOf(n.node, a)), append(asked, askedAttribute{n, a})
		}
	}
	types := map[*Child][]byte{}
	err := c.readAll(ctx, asks, func(i int, v *wire.DataValue) {
		n := asked[i].of
		if asked[i].attribute == ua.AttributeIDDataType {
			types[n] = typeIn(v.Variant)
			return
		}
		n.take(asked[i].attribute, v.Variant)
	})
	if err != nil {
		return err
	}
	return c.nameTypes(ctx, types)
}

// readAll reads attributes and hands on those that are good, valid until take returns.
func (c *Client) readAll(ctx context.Context, asks [][]byte, take func(i int, v *wire.DataValue)) error {
	if len(asks) == 0 {
		return nil
	}
	r, err := c.request(ctx, asks)
	if err != nil {
		return err
	}
	for i := range asks {
		v := r.DataValue(0)
		if r.Err != nil {
			return r.Err
		}
		if v.Status>>31 == 0 {
			take(i, &v)
		}
	}
	return nil
}

// take takes an attribute of a node.
func (n *Child) take(attribute ua.AttributeID, variant []byte) {
	r := newReader(variant)
	if len(variant) == 0 {
		return
	}
	kind := r.U8()
	switch {
	case attribute == ua.AttributeIDDescription:
		n.Description = cmp.Or(descriptionIn(variant), n.Description)
	case attribute == ua.AttributeIDValueRank && kind == wire.TypeInt32:
		n.rank = int32(r.U32())
	case attribute == ua.AttributeIDUserAccessLevel && kind == wire.TypeByte:
		level := r.U8()
		n.Access, n.Writable = accessWords(level), level&2 != 0
	case attribute == ua.AttributeIDUserExecutable && kind == wire.TypeBoolean:
		n.Access = "none"
		if r.U8() != 0 {
			n.Access = "call"
		}
	case attribute == ua.AttributeIDEventNotifier && kind == wire.TypeByte && r.U8()&1 != 0:
		n.Access = "events"
	}
}

// accessWords spells an access level (OPC 10000-3, 8.57).
func accessWords(level byte) string {
	var words []string
	for _, w := range []struct {
		bit  byte
		word string
	}{{1, "read"}, {2, "write"}, {4, "history"}} {
		if level&w.bit != 0 {
			words = append(words, w.word)
		}
	}
	return cmp.Or(strings.Join(words, "+"), "none")
}

// nameTypes names the data types of nodes.
func (c *Client) nameTypes(ctx context.Context, types map[*Child][]byte) error {
	var asks, unknown [][]byte
	for _, t := range types {
		r := newReader(t)
		n := r.NodeID()
		if _, known := c.typeNames[string(t)]; known || len(t) == 0 || r.Err != nil || n.Kind == 'i' && n.NS == 0 || len(c.typeNames) >= maxTypes {
			continue
		}
		c.typeNames[string(t)] = clip(spell(n)) // where the server does not say it
		asks, unknown = append(asks, attributeOf(t, ua.AttributeIDBrowseName)), append(unknown, bytes.Clone(t))
	}
	err := c.readAll(ctx, asks, func(i int, v *wire.DataValue) {
		r := newReader(v.Variant)
		if len(v.Variant) > 0 && r.U8() == wire.TypeQualifiedName {
			r.U16()
			c.typeNames[string(unknown[i])] = clip(string(r.Bytes()))
		}
	})
	for n, t := range types {
		n.named(c.typeNames[string(t)], t)
	}
	return err
}

// named takes the data type of a variable, by its encoded node id and, unless it is OPC UA's own, its name.
func (n *Child) named(name string, datatype []byte) {
	r := newReader(datatype)
	t := r.NodeID()
	switch {
	case len(datatype) == 0 || r.Err != nil:
		return
	case t.Kind != 'i' || t.NS != 0:
		n.Type = cmp.Or(name, clip(spell(t)))
	case t.Number < uint32(len(builtins)):
		n.Type = builtins[t.Number].name
	default:
		n.Type = strings.ReplaceAll(id.Name(t.Number), "ID", "Id")
	}
	if kind := standard(t.Number); t.Kind == 'i' && t.NS == 0 && t.Number != id.Enumeration && kind != wire.TypeNull {
		if word := builtins[kind].typ; word != telemetry.AnyType && n.rank <= 1 {
			n.Word = word.String()
		}
	}
	if n.rank >= 1 {
		n.Type += strings.Repeat("[]", int(min(n.rank, maxNesting)))
	}
}

// inspectUnits asks for the units of variables.
func (c *Client) inspectUnits(ctx context.Context, some []Child) error {
	var nodes [][]byte
	var of []*Child
	for i := range some {
		if n := &some[i]; n.Class == "variable" && n.node != nil && !n.Property {
			nodes, of = append(nodes, n.node), append(of, n)
		}
	}
	t := c.link.types
	t.mu.Lock()
	units, err := t.unitNodes(ctx, nodes)
	t.mu.Unlock()
	if err != nil {
		return err
	}
	var asks [][]byte
	var asked []*Child
	for i, unit := range units {
		if unit != nil {
			asks, asked = append(asks, attributeOf(unit, ua.AttributeIDValue)), append(asked, of[i])
		}
	}
	return c.readAll(ctx, asks, func(i int, v *wire.DataValue) { asked[i].Unit = unitIn(v.Variant) })
}
