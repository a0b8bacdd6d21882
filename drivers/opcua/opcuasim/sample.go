package opcuasim

import (
	"math"
	"reflect"
	"time"

	"github.com/gopcua/opcua/ua"
)

// sample queues the value of an item when it is another.
func (s *Server) sample(i *item, now time.Time) {
	if i.dead || i.events != nil {
		return
	}
	v, _ := s.valueOf(i.read, now)
	i.dead = s.nodes[i.key] == nil
	if s.muted[i.key] || i.last != nil && i.last.Status == v.Status && (same(i.last.Value, v.Value) || i.within(v.Value)) {
		return
	}
	for _, between := range s.between(i, v) {
		i.put(between)
	}
	i.last = v
	i.put(v)
}

// put queues a value; of a full queue the oldest is discarded.
func (i *item) put(v *ua.DataValue) {
	if len(i.queue) < i.size {
		i.queue = append(i.queue, v)
		return
	}
	i.queue = append(i.queue[1:], v)
	first := *i.queue[0]
	first.Status |= 0x480 // a value; others before it were discarded
	first.EncodingMask |= ua.DataValueStatusCode
	i.queue[0] = &first
}

// within reports whether a number lies within the deadband of the one told last.
func (i *item) within(v *ua.Variant) bool {
	if i.band == 0 || v == nil || i.last.Value == nil {
		return false
	}
	x, ok := v.Value().(float64)
	y, was := i.last.Value.Value().(float64)
	return ok && was && math.Abs(x-y) <= i.band
}

func same(a, b *ua.Variant) bool {
	if a == nil || b == nil {
		return a == b
	}
	switch x := a.Value().(type) {
	case float64:
		y, ok := b.Value().(float64)
		return ok && x == y
	case int64:
		y, ok := b.Value().(int64)
		return ok && x == y
	}
	return reflect.DeepEqual(a.Value(), b.Value())
}
