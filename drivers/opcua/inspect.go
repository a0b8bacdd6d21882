package opcua

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// inspected is how many nodes, or attributes, are asked about in one request at most.
const inspected = 100

// Children returns what is right below a node, "" for the Objects folder, with what the server says of each: its data type, unit, range, description, and what the
// user may do. A server that refuses to say that is none the worse.
func (c *Client) Children(ctx context.Context, parent string) (all []Child, err error) {
	defer caught(&err)
	if err := c.browse(ctx, parent, maxBrowsed, func(n Child) bool { all = append(all, n); return true }); err != nil {
		return nil, err
	}
	if err := c.learnPaths(ctx); err != nil {
		return all, err
	}
	for some := range slices.Chunk(all, inspected) {
		if err := cmp.Or(c.inspect(ctx, some), c.inspectProperties(ctx, some)); err != nil {
			return all, err
		}
	}
	return all, nil
}

// TellsEvents reports whether a node says that it tells events.
func (c *Client) TellsEvents(ctx context.Context, address string) (tells bool, err error) {
	defer caught(&err)
	names, err := c.namespaces(ctx)
	if err != nil {
		return false, err
	}
	node, err := c.node(ctx, address, names)
	if err != nil {
		return false, err
	}
	var n Child
	err = c.readAll(ctx, [][]byte{attributeOf(node, ua.AttributeIDEventNotifier)}, func(_ int, v *wire.DataValue) {
		n.take(ua.AttributeIDEventNotifier, v.Variant)
	})
	return n.Access != "", err
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

// inspect asks for the attributes of some nodes.
func (c *Client) inspect(ctx context.Context, some []Child) error {
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

// readAll reads attributes and hands on those that are good, valid until take returns. Where the server refuses many, it is asked for fewer; one that it
// refuses is not known.
func (c *Client) readAll(ctx context.Context, asks [][]byte, take func(i int, v *wire.DataValue)) error {
	for at := 0; at < len(asks); {
		n := max(min(inspected, c.most, len(asks)-at), 1)
		err := c.readSome(ctx, asks[at:at+n], func(i int, v *wire.DataValue) { take(at+i, v) })
		switch {
		case err == nil:
			at += n
		case unlessRefused(err) != nil:
			return err
		case n > 1:
			c.most = n / 2
		default:
			at++
		}
	}
	return nil
}

func (c *Client) readSome(ctx context.Context, asks [][]byte, take func(i int, v *wire.DataValue)) error {
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

// inspectProperties asks for the units and ranges of variables.
func (c *Client) inspectProperties(ctx context.Context, some []Child) error {
	var sought []property
	var of []question // their tag is the place among some
	for i := range some {
		for what := sayUnit; some[i].Class == "variable" && some[i].node != nil && !some[i].Property && what <= sayRange; what++ {
			sought, of = append(sought, property{some[i].node, what.property()}), append(of, question{i, what})
		}
	}
	var asks [][]byte
	var asked []question
	for at := 0; at < len(sought); {
		n := max(min(inspected, c.finder.most, len(sought)-at), 1)
		nodes, err := c.properties(ctx, sought[at:at+n])
		switch {
		case err != nil && unlessRefused(err) != nil:
			return err
		case err != nil && n > 1:
			c.finder.most = n / 2
			continue
		}
		for i, node := range nodes {
			if node != nil {
				asks, asked = append(asks, attributeOf(node, ua.AttributeIDValue)), append(asked, of[at+i])
			}
		}
		at += n
	}
	return c.readAll(ctx, asks, func(i int, v *wire.DataValue) {
		if n := &some[asked[i].tag]; asked[i].saying == sayUnit {
			n.Unit = unitIn(v.Variant)
		} else {
			n.Range = rangeIn(v.Variant)
		}
	})
}

func (c *Client) properties(ctx context.Context, sought []property) ([][]byte, error) {
	c.link.types.mu.Lock()
	defer c.link.types.mu.Unlock()
	return c.link.types.properties(ctx, sought)
}
