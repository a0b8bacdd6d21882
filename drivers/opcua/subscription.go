package opcua

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// The messages of subscriptions (OPC 10000-4, 5.12 and 5.13).

const itemSize = 4 + 4 + 8 + 25 + 4 + 1 // bytes of a request for an item, beyond its ReadValueId

// ack says that a message of a subscription has come.
type ack struct{ subscription, sequence uint32 }

// terms are what a subscription was asked to be, and what the server made of it.
type terms struct {
	id        uint32
	publish   time.Duration // publishing interval
	life      uint32        // publishing intervals without a request of ours, after which it ends
	keepAlive uint32        // publishing intervals without news, after which that is said
}

// encodeCreateSubscription returns the body of a CreateSubscription request. A message has at most so many values.
func encodeCreateSubscription(t terms, most int) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		b = appendFloat(b, millis(t.publish))
		for _, v := range [...]uint32{t.life, t.keepAlive, uint32(most)} {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		return append(b, 1, 0), nil // publishing; priority
	}
}

func (r *reader) terms() terms {
	return terms{r.U32(), duration(r.F64()), r.U32(), r.U32()}
}

// encodeMonitor returns the body of a CreateMonitoredItems request for some tags of a group, by encoded ReadValueIds. The handle of
// an item is its tag, counted from base.
func encodeMonitor(subscription uint32, base int, p *plan, tags []int, sampling time.Duration, queue int) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		for _, v := range [...]uint32{subscription, uint32(ua.TimestampsToReturnBoth), uint32(len(tags))} {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		for _, tag := range tags {
			b = append(b, p.ids[tag]...)
			b = binary.LittleEndian.AppendUint32(b, uint32(ua.MonitoringModeReporting))
			b = binary.LittleEndian.AppendUint32(b, uint32(base+tag))
			if filter := p.filters[tag]; filter != nil {
				b = append(appendFloat(b, 0), filter...)
				b = binary.LittleEndian.AppendUint32(b, eventQueue)
			} else {
				b = appendFloat(b, millis(sampling))
				b = appendDeadband(b, p.bands[tag])
				b = binary.LittleEndian.AppendUint32(b, uint32(queue))
			}
			b = append(b, 1) // of a full queue the oldest is discarded
		}
		return b, nil
	}
}

// item is what the server made of a request for an item.
type item struct {
	id       uint32
	status   ua.StatusCode
	sampling time.Duration
	queue    uint32
}

func (r *reader) item() item {
	status := ua.StatusCode(r.U32())
	i := item{r.U32(), status, duration(r.F64()), r.U32()}
	r.ExtensionObject()
	return i
}

// encodePublish returns the body of a Publish request.
func encodePublish(acks []ack) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(acks)))
		for _, a := range acks {
			b = binary.LittleEndian.AppendUint32(b, a.subscription)
			b = binary.LittleEndian.AppendUint32(b, a.sequence)
		}
		return b, nil
	}
}

// encodeRepublish returns the body of a Republish request.
func encodeRepublish(a ack) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		b = binary.LittleEndian.AppendUint32(b, a.subscription)
		return binary.LittleEndian.AppendUint32(b, a.sequence), nil
	}
}

// published takes a Publish response up to its message: see message.
func (r *reader) published() (subscription uint32, more bool) {
	subscription = r.U32()
	r.Take(4 * r.Count(4)) // messages that the server still has
	return subscription, r.U8() != 0
}

// message takes a NotificationMessage (OPC 10000-4, 7.26) and returns a reader of each of its parts. One without parts is a
// keep-alive. sent is when, by the server's clock. What stands behind the message is not looked at.
func (r *reader) message() (sequence uint32, sent int64, parts int) {
	sequence, sent = r.U32(), int64(r.U64())
	return sequence, sent, r.Count(3)
}

// The parts of a message.
const (
	otherPart  = iota // nothing that was asked for
	dataPart          // values
	eventPart         // events
	statusPart        // what has become of the subscription
)

// part takes one part of a message and returns a reader of its body.
func (r *reader) part() (kind int, body reader) {
	n := r.ExpandedNodeID()
	switch encoding := r.U8(); {
	case encoding == 1:
		body = newReader(r.Bytes())
	case encoding == 2:
		r.Bytes()
		return otherPart, body
	case encoding != 0:
		r.Fail("it holds a structure in the unknown encoding %d", encoding)
	}
	switch {
	case r.Err != nil || n.Kind != 'i' || n.NS != 0 || n.URI != nil:
		return otherPart, body
	case n.Number == id.DataChangeNotification_Encoding_DefaultBinary:
		return dataPart, body
	case n.Number == id.EventNotificationList_Encoding_DefaultBinary:
		return eventPart, body
	case n.Number == id.StatusChangeNotification_Encoding_DefaultBinary:
		return statusPart, body
	}
	return otherPart, body
}

func appendFloat(b []byte, f float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// duration returns so many milliseconds, at most a day; what is no number, or below zero, counts as nothing.
func duration(ms float64) time.Duration {
	if !(ms > 0) {
		return 0
	}
	return time.Duration(min(ms, float64(24*time.Hour/time.Millisecond)) * float64(time.Millisecond))
}

// say spells a note's times.
func say(d time.Duration) string { return fmt.Sprint(d.Round(time.Millisecond)) }
