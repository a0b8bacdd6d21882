package opcua

import (
	"bytes"
	"cmp"
	"context"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

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
	if noSuchNode(status) || value.Status == uint32(ua.StatusBadAttributeIDInvalid) {
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

// typeIn returns the encoded node id that a variant holds, nil for none.
func typeIn(variant []byte) []byte {
	r := newReader(variant)
	if len(variant) == 0 || r.U8() != wire.TypeNodeID {
		return nil
	}
	return r.rawNodeID()
}

// rawNodeID takes a node id as it stands in the message, nil where it is none. It outlasts the message.
func (r *reader) rawNodeID() []byte {
	from := r.B
	if r.NodeID(); r.Err != nil {
		return nil
	}
	return bytes.Clone(from[:len(from)-len(r.B)])
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

// builtin returns the built-in type that values of an encoded data type have on the wire: itself, what is held now, or the first built-in one among those
// it is derived from; TypeNull when any may be.
func (d *driver) builtin(ctx context.Context, datatype []byte, now byte) (byte, error) {
	for range maxAbove {
		kind := byte(wire.TypeNull)
		r := newReader(datatype)
		if n := r.NodeID(); r.Err == nil && n.Kind == 'i' && n.NS == 0 {
			kind = standard(n.Number)
		}
		switch {
		case kind != wire.TypeNull && kind != wire.TypeVariant:
			return kind, nil
		case now != wire.TypeNull && now != wire.TypeVariant:
			return now, nil
		case kind == wire.TypeVariant || len(datatype) == 0:
			return wire.TypeNull, nil
		}
		var err error
		if datatype, err = d.link.types.supertype(ctx, datatype); err != nil {
			return wire.TypeNull, err
		}
	}
	return wire.TypeNull, nil
}

// supertype returns the encoded type that another is derived from, nil for none that the server names.
func (t *types) supertype(ctx context.Context, datatype []byte) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until = time.Now().Add(maxLookup * t.link.timeout)
	super, _ := t.related(ctx, datatype, id.HasSubtype, inverse)
	if len(super) == 0 {
		return nil, cmp.Or(ctx.Err(), t.link.channel.Err())
	}
	return super[0].node, nil
}
