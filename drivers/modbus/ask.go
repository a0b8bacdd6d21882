package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"millrace/drivers"
)

// The function codes that only tools use.
const (
	reportServerID = 17
	encapsulated   = 43
	readDeviceID   = 14 // the kind of function 43
)

// Ask makes one request, given as unit id and PDU, and returns the PDU of the answer, an exception among them: see
// drivers.Asker. It knows the functions 1 to 4, 17 and 43/14; unlike a poll it asks once.
func (d *driver) Ask(ctx context.Context, request []byte) ([]byte, error) {
	q, err := readOnly(request)
	if err != nil {
		return nil, err
	}
	u := d.unitOf(q.unit)
	q.units, q.transactions, q.once = u.acceptUnit, u.acceptTransaction, true
	if err := d.link.back(ctx, u.timeout); err != nil {
		return nil, fmt.Errorf("%w: %w", drivers.ErrLink, err)
	}
	pdu, err := d.exchange(ctx, u, q)
	if d.link.closeAfter && d.link.wire != nil {
		d.link.leave()
	}
	switch e := err.(type) {
	case nil:
		return slices.Clone(pdu), nil
	case exception:
		return []byte{q.pdu[0] | exceptionBit, byte(e)}, nil
	case *loss:
		return nil, fmt.Errorf("%w: unit %d: %s", drivers.ErrDevice, u.id, e.words(u.timeout))
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("%w: unit %d: no answer in the time that there was for a tool", drivers.ErrDevice, u.id)
	case ctx.Err() != nil:
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", drivers.ErrLink, err)
}

// unitOf returns the unit of an id. One that the config does not have gets the manners of the first.
func (d *driver) unitOf(id uint8) *unit {
	for _, u := range slices.Concat(d.units, d.guests) {
		if u.id == id {
			return u
		}
	}
	u := &unit{settings: d.units[0].settings, timeout: d.units[0].timeout}
	u.id = id
	d.opens(u)
	d.guests = append(d.guests, u) // 256 at most
	return u
}

// readOnly makes a request of a unit id and a PDU that changes nothing in the device.
func readOnly(bytes []byte) (*request, error) {
	if len(bytes) < 2 {
		return nil, fmt.Errorf("ask: a request is a unit id and a PDU, not %d bytes", len(bytes))
	}
	q := &request{unit: bytes[0], pdu: bytes[1:]}
	switch code := q.pdu[0]; {
	case code >= readCoils && code <= readInput && len(q.pdu) == 5:
		return q, q.reads(code)
	case code == reportServerID && len(q.pdu) == 1, code == encapsulated && len(q.pdu) == 4 && q.pdu[1] == readDeviceID:
		q.varies = true
		return q, nil
	}
	return nil, fmt.Errorf("ask: function %d with %d bytes is none of those that only read: 1 to 4, 17, 43/14", q.pdu[0], len(q.pdu))
}

// reads sets how long the answer to a read is.
func (q *request) reads(code byte) error {
	first, count := int(binary.BigEndian.Uint16(q.pdu[1:])), int(binary.BigEndian.Uint16(q.pdu[3:]))
	most := 16 * defaultMaxRegisters
	q.want = (count + 7) / 8
	if code > readDiscretes {
		q.want, most = 2*count, defaultMaxRegisters
	}
	if count < 1 || count > most || first+count > lastRegister+1 {
		return fmt.Errorf("ask: %d from address %d on; one request reads 1 to %d, and the last address is %d", count, first, most, lastRegister)
	}
	return nil
}

// varying is how long the PDU of an answer is that says so itself, more than can be when it does not say so yet.
func varying(pdu []byte) int {
	const unknown = maxPDU + 1
	if len(pdu) < 2 {
		return unknown
	}
	if pdu[0] == reportServerID {
		return 2 + int(pdu[1])
	}
	n := 7 // function, kind, code, conformity, more follows, next object, number of objects
	if len(pdu) < n || pdu[0] != encapsulated || pdu[1] != readDeviceID {
		return unknown
	}
	for range pdu[6] {
		if len(pdu) < n+2 || n > maxPDU {
			return unknown
		}
		n += 2 + int(pdu[n+1])
	}
	return n
}
