package opcua

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

// A server says by an event of the type BaseModelChangeEventType or GeneralModelChangeEventType (OPC 10000-3, 9.32) that nodes have come or gone. Who has a rule
// monitors the Server object for those, in a subscription of its own beside those of the groups, because such an event is no reading.

// modelWatch is that subscription.
type modelWatch struct{ id uint32 }

// watchModels subscribes to changes of the server's nodes behind the last of the groups, if one of them has a rule: it may be the one subscription too many. A server
// that refuses is asked for its nodes at each connect, and every modelsEvery.
func (d *driver) watchModels(ctx context.Context) error {
	if d.feed.models != nil || len(d.feed.subs) == 0 || !d.hasRule() {
		return nil
	}
	d.feed.modelsMoved = func() { d.models.Add(1) }
	err := d.feed.watchModels(ctx)
	switch {
	case err != nil && d.link.channel.Err() == nil:
		return nil
	case err == nil && d.feed.models != nil:
		d.deaf.Store(nil)
	}
	return err
}

// modelsEvery is how often nodes may have come or gone where the server cannot say so: with mode: read, and where it refuses that subscription. To look for them takes a request for each twenty nodes, between polls.
const modelsEvery = 10 * time.Minute

// Models is another number after each connect, after each event by which the server says that its nodes have changed, and where it cannot say so, now and then: drivers.Selector.
func (d *driver) Models() uint64 {
	n := d.models.Load() << 32
	if since := d.deaf.Load(); since != nil {
		n |= uint64(time.Since(*since)/modelsEvery) & math.MaxUint32
	}
	return n
}

func (d *driver) hasRule() bool {
	for _, device := range d.groups {
		for i := range device {
			if device[i].rule != nil {
				return true
			}
		}
	}
	return false
}

func (f *feed) watchModels(ctx context.Context) error {
	item, err := modelItem()
	if err != nil {
		return err
	}
	got, err := f.createSubscription(ctx, termsFor(maxPublishing, f.set.quiet))
	if err != nil {
		return err
	}
	w := &modelWatch{id: got.id}
	f.models = w
	r, err := f.call(ctx, id.CreateMonitoredItemsRequest_Encoding_DefaultBinary, id.CreateMonitoredItemsResponse_Encoding_DefaultBinary, func(b []byte) ([]byte, error) {
		for _, v := range [...]uint32{w.id, uint32(ua.TimestampsToReturnNeither), 1} {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		return append(b, item...), nil
	})
	if err == nil && r.Count(1) == 1 && r.item().status>>31 == 0 && r.Err == nil {
		return nil
	}
	f.models = nil
	return errors.Join(err, f.deleteSubscription(ctx, w.id))
}

// modelItem returns the encoded MonitoredItemCreateRequest for changes of the nodes.
func modelItem() ([]byte, error) {
	node, err := notifierOf(ua.NewNumericNodeID(0, id.Server))
	if err != nil {
		return nil, err
	}
	f := &ua.EventFilter{SelectClauses: []*ua.SimpleAttributeOperand{operand(id.BaseEventType, "EventType")}, WhereClause: &ua.ContentFilter{Elements: []*ua.ContentFilterElement{{
		FilterOperator: ua.FilterOperatorOfType,
		FilterOperands: []*ua.ExtensionObject{ua.NewExtensionObject(&ua.LiteralOperand{Value: ua.MustVariant(ua.NewNumericNodeID(0, id.BaseModelChangeEventType))})},
	}}}}
	filter, err := ua.Encode(ua.NewExtensionObject(f))
	b := binary.LittleEndian.AppendUint32(node, uint32(ua.MonitoringModeReporting))
	b = appendFloat(binary.LittleEndian.AppendUint32(b, 0), 0) // handle; sampling
	b = binary.LittleEndian.AppendUint32(append(b, filter...), 1)
	return append(b, 1), err // one is as good as many
}

// told takes a message of the subscription to changes of the nodes. What is not well formed says nothing: it concerns no reading.
func (f *feed) told(subscription, sequence uint32, r *reader, parts int) {
	if f.models == nil || subscription != f.models.id || parts == 0 {
		return
	}
	f.acks = append(f.acks, ack{subscription, sequence})
	for ; parts > 0 && r.Err == nil; parts-- {
		if kind, body := r.part(); kind == eventPart && body.tellsModel() {
			f.modelsMoved()
			return
		}
	}
}

// tellsModel reports whether one of the events of an EventNotificationList says that nodes have changed: a server may not know how to filter.
func (r *reader) tellsModel() bool {
	for n := r.Count(8); n > 0 && r.Err == nil; n-- {
		r.U32() // handle
		for i := range r.Count(1) {
			from := r.B
			if r.Variant(0); r.Err != nil {
				return false
			}
			field := newReader(from)
			if i > 0 || field.U8() != wire.TypeNodeID {
				continue
			}
			if t := field.NodeID(); t.Kind == 'i' && t.NS == 0 && (t.Number == id.BaseModelChangeEventType || t.Number == id.GeneralModelChangeEventType) {
				return true
			}
		}
	}
	return false
}
