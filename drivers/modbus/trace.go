package modbus

import (
	"time"

	"millrace/drivers"
)

// maxRaw is how many bytes that are no answer a trace shows.
const maxRaw = 300

// Trace shows the exchanges of the line: see drivers.Tracer. While nobody looks it costs one load of a pointer a request.
func (d *driver) Trace(f func(*drivers.Exchange)) {
	if f == nil {
		d.link.trace.Store(nil)
		return
	}
	d.link.trace.Store(&f)
}

// show gives one exchange to whoever looks.
func (l *link) show(f func(*drivers.Exchange), q *request, pdu []byte, err error, sent time.Time, timeout time.Duration) {
	e := drivers.Exchange{At: sent, Took: l.last.Sub(sent), Request: append([]byte{q.unit}, q.pdu...)}
	switch err := err.(type) {
	case nil:
		e.Answer = append([]byte{q.unit}, pdu...)
	case exception:
		e.Answer = []byte{q.unit, q.pdu[0] | exceptionBit, byte(err)}
	case *loss:
		e.Reason = err.words(timeout)
		e.Raw = l.wire.in[:min(l.wire.have, maxRaw)]
	default:
		e.Reason = err.Error()
	}
	f(&e)
}
