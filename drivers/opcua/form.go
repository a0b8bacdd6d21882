package opcua

import (
	"context"
	"fmt"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

// maxSupertypes is how far up a data type is followed to a built-in one.
const maxSupertypes = 16

// formOf asks the server what a node holds: its data type is the rule, the value it holds now says what the rule leaves open, and the type in
// the config the rest.
func (d *driver) formOf(ctx context.Context, node []byte, want wanted) (form, error) {
	r, err := d.request(ctx, [][]byte{attributeOf(node, ua.AttributeIDDataType),
		attributeOf(node, ua.AttributeIDValueRank), attributeOf(node, ua.AttributeIDValue)})
	if err != nil {
		return form{}, err
	}
	datatype, rank, value := r.DataValue(0), r.DataValue(0), r.DataValue(0)
	if r.Err != nil {
		return form{}, r.Err
	}
	status := ua.StatusCode(datatype.Status)
	if status == ua.StatusBadNodeIDUnknown || status == ua.StatusBadNodeIDInvalid || value.Status == uint32(ua.StatusBadAttributeIDInvalid) {
		return form{}, refusal(value.Status)
	}
	now := formIn(value.Variant)
	f, err := shape(rank.Variant, now, value.Variant)
	if err != nil {
		return f, err
	}
	f.kind, err = d.builtin(ctx, typeIn(datatype.Variant), now.kind)
	if err == nil && f.kind == wire.TypeNull {
		f.kind = builtinOf(want.word)
	}
	switch {
	case err != nil:
		return f, err
	case f.kind == wire.TypeNull && status>>31 != 0:
		return f, unfit("the server does not say which type the node has, " + statusText(status) + "; write its type at the tag")
	case f.kind == wire.TypeNull:
		return f, unfit("the node takes any type and holds no value; write the type at the tag")
	}
	return f, f.writable()
}

// typeIn returns the node id that a variant holds, i=0 for none.
func typeIn(variant []byte) wire.NodeID {
	r := newReader(variant)
	if len(variant) == 0 || r.U8() != wire.TypeNodeID {
		return wire.NodeID{Kind: 'i'}
	}
	n := r.NodeID()
	n.Text = append([]byte(nil), n.Text...) // the message is overwritten by the next one
	return n
}

// formIn returns the form of a value.
func formIn(variant []byte) form {
	if len(variant) == 0 {
		return form{}
	}
	return form{kind: variant[0] & wire.MaskType, array: variant[0]&wire.MaskArray != 0}
}

// shape says whether a node holds an array: as its value is now, or by its rank.
func shape(rank []byte, now form, value []byte) (form, error) {
	dimensions := int32(-1)
	if r := newReader(rank); len(rank) > 0 && r.U8() == wire.TypeInt32 {
		dimensions = int32(r.U32())
	}
	if dimensions > 1 || len(value) > 0 && value[0]&wire.MaskDimensions != 0 {
		return form{}, unfit("arrays of several dimensions are not written")
	}
	if now.kind != wire.TypeNull {
		return form{array: now.array}, nil
	}
	return form{array: dimensions >= 0}, nil
}

// builtin returns the built-in type that values of a data type have on the wire: itself, what is held now, or the first built-in one among those
// it is derived from; TypeNull when any may be.
func (d *driver) builtin(ctx context.Context, t wire.NodeID, now byte) (byte, error) {
	for range maxSupertypes {
		switch kind, known := builtinType(t); {
		case known && kind != wire.TypeNull:
			return kind, nil
		case now != wire.TypeNull && now != wire.TypeVariant:
			return now, nil
		case known || t.Kind == 'i' && t.Number == 0:
			return wire.TypeNull, nil
		}
		above, err := d.supertype(ctx, t)
		if err != nil {
			return wire.TypeNull, unlessRefused(err)
		}
		t = above
	}
	return wire.TypeNull, nil
}

// builtinType returns the built-in type that a data type of OPC UA's own names, TypeNull for one that stands for several.
func builtinType(t wire.NodeID) (kind byte, known bool) {
	switch {
	case t.Kind != 'i' || t.NS != 0:
		return wire.TypeNull, false
	case t.Number == id.Enumeration:
		return wire.TypeInt32, true
	case t.Number == id.BaseDataType || t.Number == id.Number || t.Number == id.Integer || t.Number == id.UInteger:
		return wire.TypeNull, true
	case t.Number > wire.TypeNull && t.Number < uint32(len(builtins)):
		return byte(t.Number), true
	}
	return wire.TypeNull, false
}

// supertype returns the data type that another is derived from, i=0 for none.
func (d *driver) supertype(ctx context.Context, t wire.NodeID) (above wire.NodeID, err error) {
	above.Kind = 'i'
	a, m := parseAddress(spell(t))
	if m != nil {
		return above, nil
	}
	node, err := a.nodeID(a.ns).Encode()
	if err != nil {
		return above, fmt.Errorf("BUG: encode node id %q: %w", a, err)
	}
	r, err := d.link.call(ctx, id.BrowseRequest_Encoding_DefaultBinary, id.BrowseResponse_Encoding_DefaultBinary, encodeRelated(node, id.HasSubtype, inverse))
	if err != nil {
		return above, err
	}
	return r.above(), r.Err
}

// above takes a Browse response behind its header and returns the first node of the first result, i=0 for none.
func (r *reader) above() wire.NodeID {
	n := wire.NodeID{Kind: 'i'}
	if r.Count(1) == 0 {
		return n
	}
	r.U32()   // status: without references it says nothing more
	r.Bytes() // no second one is wanted
	if r.Count(10) > 0 {
		r.NodeID()
		r.U8()
		n = r.ExpandedNodeID()
		n.Text = append([]byte(nil), n.Text...) // the message is overwritten by the next one
	}
	return n
}
