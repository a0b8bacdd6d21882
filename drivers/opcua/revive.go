package opcua

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

// A node that is taken out of a server leaves its monitored item behind, which says so once and stays dead although the node comes back.

// gone reports whether a pushed status says that the node of the item is no more.
func gone(status uint32) bool {
	return noSuchNode(ua.StatusCode(status & 0xFFFF0000))
}

// lives takes the status of a pushed value, and reports whether it is news: an item made anew for a node that is still gone may say so again.
func (f *feed) lives(m *member, tag int, v *wire.DataValue) (news bool) {
	before, dead := m.dead[tag]
	if !gone(v.Status) {
		if dead {
			delete(m.dead, tag)
			m.accept(tag)
		}
		return true
	}
	if _, refused := m.reasons[tag]; !refused {
		if len(m.refused) == 0 {
			m.retry = time.Now().Add(asideTime)
		}
		m.refuse(tag, f.texts.reason(ua.StatusCode(v.Status)))
	}
	m.dead[tag] = v.Status
	m.verified.forget(tag)
	return !dead || before != v.Status
}

// accept takes a tag out of those that are tried again.
func (m *member) accept(tag int) {
	if _, refused := m.reasons[tag]; refused {
		delete(m.reasons, tag)
		m.refused = slices.DeleteFunc(m.refused, func(t int) bool { return t == tag })
	}
}

// bury deletes the items of the tags that have one.
func (f *feed) bury(m *member, tags []int) error {
	var items []uint32
	for _, tag := range tags {
		if m.items[tag] != 0 {
			items = append(items, m.items[tag])
			m.items[tag] = 0
		}
	}
	if len(items) == 0 {
		return nil
	}
	_, err := f.call(f.ctx, id.DeleteMonitoredItemsRequest_Encoding_DefaultBinary, id.DeleteMonitoredItemsResponse_Encoding_DefaultBinary, encodeDeleteItems(m.id, items))
	return unlessRefused(err)
}

// encodeDeleteItems returns the body of a DeleteMonitoredItems request.
func encodeDeleteItems(subscription uint32, items []uint32) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		b = binary.LittleEndian.AppendUint32(b, subscription)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(items)))
		for _, i := range items {
			b = binary.LittleEndian.AppendUint32(b, i)
		}
		return b, nil
	}
}
