package opcua

import (
	"slices"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
)

// data hands on the values of a DataChangeNotification (OPC 10000-4, 7.25.2), one group after the other.
func (f *feed) data(s *subscription, r *reader) error {
	n := r.Count(5)
	in, err := s.among(*r, n)
	if err != nil {
		return err
	}
	begin := *r
	for _, m := range in {
		*r = begin
		if err := f.values(m, r, n); err != nil {
			return err
		}
	}
	return f.spoilt(s, r.Err)
}

// among returns the groups of which a notification of n values has some.
func (s *subscription) among(r reader, n int) (in []*member, err error) {
	if len(s.members) == 1 {
		return s.members, nil
	}
	for ; n > 0 && r.Err == nil; n-- {
		m, _, err := s.of(r.U32())
		if r.DataValue(0); err != nil && r.Err == nil {
			return nil, err
		}
		if m != nil && !slices.Contains(in, m) {
			in = append(in, m)
		}
	}
	return in, nil
}

// values hands on those of n values that are of a group.
func (f *feed) values(m *member, r *reader, n int) error {
	for n > 0 && r.Err == nil {
		p := drivers.Push{Readings: slices.Grow(f.rooms[f.room][:0], min(n, maxPush))}
		for ; n > 0 && len(p.Readings) < maxPush; n-- {
			of, tag, err := m.of(r.U32())
			v := r.DataValue(0)
			if r.Err != nil {
				break
			}
			if err != nil {
				return err
			}
			if of == m {
				f.value(m, tag, &v, &p)
			}
		}
		f.rooms[f.room] = p.Readings
		f.room = (f.room + 1) % len(f.rooms)
		f.pushPart(m, p, n == 0)
	}
	return nil
}

// value takes one value.
func (f *feed) value(m *member, tag int, v *wire.DataValue, p *drivers.Push) {
	if v.Status&overflowed == overflowed {
		p.Lost += 1 + len(m.group.also[tag])
		p.Tags = append(p.Tags, uint32(tag))
		for _, other := range m.group.also[tag] {
			p.Tags = append(p.Tags, uint32(other))
		}
	}
	if m.group.ask.bands[tag] == 0 { // else a read may say another value
		m.note(tag, v, m.heard, m.came)
	}
	if !f.lives(m, tag, v) {
		return
	}
	m.marks.note(tag, m.group.doubted(tag))
	from := len(p.Readings)
	p.Readings = f.readings(f.ctx, m.group, tag, v, p.Readings)
	for i := from; i < len(p.Readings); i++ {
		m.silence.note(&p.Readings[i], m.heard)
	}
}

// overflowed is set in the status of a value before which the server has discarded others (OPC 10000-4, 7.39.1).
const overflowed = 0x480
