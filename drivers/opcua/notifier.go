package opcua

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// Some servers take an item for events of a node that tells none, or of a type that is none of events, and nothing ever comes. So they are asked before what these are.

// asksOfNotifier is how many values are asked for of a tag: its node's EventNotifier and NodeClass, and the NodeClass of its event_type.
const asksOfNotifier = 3

// checkNotifiers sets those of the tags apart that are of events and will never have one, with why. What the server does not say counts as right.
func (f *feed) checkNotifiers(ctx context.Context, m *member, tags []int) (rest []int, bad []telemetry.Reading, err error) {
	var of []int
	for _, tag := range tags {
		if m.group.tags[tag].event != nil && m.group.ask.ids[tag] != nil {
			of = append(of, tag)
		}
	}
	if len(of) == 0 || f.finder.lost.often(anyNotifier) {
		return tags, nil, nil
	}
	for some := range slices.Chunk(of, max(f.reads/asksOfNotifier, 1)) {
		wrong, err := f.askNotifiers(ctx, m, some)
		if err != nil {
			return nil, nil, err
		}
		for i, why := range wrong {
			if why != "" {
				bad = append(bad, m.refuse(some[i], why))
			}
		}
	}
	f.finder.lost.note(anyNotifier, nil)
	rest = slices.DeleteFunc(slices.Clone(tags), func(tag int) bool {
		return slices.ContainsFunc(bad, func(r telemetry.Reading) bool { return int(r.Tag) == tag })
	})
	return rest, bad, nil
}

// askNotifiers returns what is wrong with the nodes and types of some tags, "" where nothing is known to be; none when the server refuses.
func (f *feed) askNotifiers(ctx context.Context, m *member, tags []int) (wrong []string, err error) {
	var asks, kinds [][]byte
	for _, tag := range tags {
		node := askedNode(m.group.ask.ids[tag])
		kind := node // where any type will do
		if a := m.group.tags[tag].event.kind; a != nil {
			ns, _ := a.index(f.finder.names, "")
			if kind, err = ua.Encode(a.nodeID(ns)); err != nil {
				return nil, fmt.Errorf("BUG: encode node id %q: %w", a, err)
			}
		}
		kinds = append(kinds, kind)
		asks = append(asks, attributeOf(node, ua.AttributeIDEventNotifier), attributeOf(node, ua.AttributeIDNodeClass), attributeOf(kind, ua.AttributeIDNodeClass))
	}
	r, err := f.call(ctx, id.ReadRequest_Encoding_DefaultBinary, id.ReadResponse_Encoding_DefaultBinary, encodeRead(asks))
	if lost := unlessRefused(err); lost != nil {
		f.finder.lost.note(anyNotifier, lost)
		return nil, over(err, anyNotifier)
	}
	if err != nil || r.Count(1) != len(asks) {
		return nil, nil
	}
	for i, tag := range tags {
		notifier, says := r.small()
		class, known := r.small()
		kind, typed := r.small()
		wrong = append(wrong, "")
		why := &wrong[len(wrong)-1]
		switch a := m.group.tags[tag].event.kind; {
		case r.Err != nil:
			return nil, nil
		case known == ua.StatusOK && class != uint32(ua.NodeClassObject) && class != uint32(ua.NodeClassView):
			*why = fmt.Sprintf("the node is of the class %s, and only objects and views tell events; use the address of the object that it belongs to, or i=2253, the server", className(class))
		case says == ua.StatusOK && notifier&1 == 0:
			*why = "the node tells no events (its EventNotifier says so); use the address of an object that does, such as i=2253, the server"
		case a != nil && typed == ua.StatusOK && kind != uint32(ua.NodeClassObjectType):
			*why = fmt.Sprintf("event_type %q is of the class %s, and no type of events; %s", clip(a.String()), className(kind), useType)
		case a != nil && typed == ua.StatusOK:
			*why, err = f.eventless(ctx, a, kinds[i])
		case a != nil && a.ns == 0 && a.uri == "" && noSuchNode(typed): // some servers leave OPC UA's own types out
			if of := new(happened); of.typeOf(a.String()) == 0 || of.Type == "" {
				m.untyped = clip(a.String())
			}
		case a != nil && noSuchNode(typed):
			*why = fmt.Sprintf("event_type %q: the server has no such node; %s", clip(a.String()), readMends[typed])
		}
		if err != nil {
			return nil, err
		}
	}
	return wrong, nil
}

// eventless returns why a type of objects, encoded, is none of events: the server derives it from BaseObjectType, and not by way of BaseEventType.
func (f *feed) eventless(ctx context.Context, a *address, kind []byte) (why string, err error) {
	if f.kinds[string(kind)] {
		return "", nil
	}
	asked := string(kind)
	for i := 0; i < maxAbove && len(kind) > 0; i++ {
		r := newReader(kind)
		switch n := r.NodeID(); {
		case n.Kind != 'i' || n.NS != 0:
		case n.Number == id.BaseEventType:
			kind = nil
			continue
		case n.Number == id.BaseObjectType:
			return fmt.Sprintf("event_type %q is a type of objects, and none of events; %s", clip(a.String()), useType), nil
		}
		if kind, err = f.link.types.supertype(ctx, kind); err != nil {
			f.finder.lost.note(anyNotifier, err)
			return "", over(err, anyNotifier)
		}
	}
	f.kinds[asked] = true
	return "", nil
}

// useType is what to do about an event_type that is none.
const useType = "use the node id of one, such as i=2915 (alarms) or i=2782 (conditions)"

// small takes a value that is a small number, or says why there is none.
func (r *reader) small() (n uint32, status ua.StatusCode) {
	v := r.DataValue(0)
	if r.Err != nil || v.Status>>31 != 0 {
		return 0, cmp.Or(ua.StatusCode(v.Status), ua.StatusBadDecodingError)
	}
	if len(v.Variant) < 2 {
		return 0, ua.StatusBadNoData
	}
	of := newReader(v.Variant[1:])
	switch v.Variant[0] {
	case wire.TypeByte:
		n = uint32(of.U8())
	case wire.TypeInt32, wire.TypeUInt32: // enumerations too
		n = of.U32()
	default:
		return 0, ua.StatusBadTypeMismatch
	}
	if of.Err != nil {
		return 0, ua.StatusBadDecodingError
	}
	return n, ua.StatusOK
}

// className is the name of a NodeClass (OPC 10000-3, 8.29).
func className(class uint32) string {
	switch ua.NodeClass(class) {
	case ua.NodeClassObject:
		return "Object"
	case ua.NodeClassVariable:
		return "Variable"
	case ua.NodeClassMethod:
		return "Method"
	case ua.NodeClassObjectType:
		return "ObjectType"
	case ua.NodeClassVariableType:
		return "VariableType"
	case ua.NodeClassReferenceType:
		return "ReferenceType"
	case ua.NodeClassDataType:
		return "DataType"
	case ua.NodeClassView:
		return "View"
	}
	return fmt.Sprintf("%d", class)
}
