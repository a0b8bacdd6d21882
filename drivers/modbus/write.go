package modbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Write writes the values one by one: see drivers.Writer. A write that got no answer is never made again by itself, because
// nobody knows whether it was carried out.
func (d *driver) Write(ctx context.Context, ws []drivers.Write) []error {
	errs := make([]error, len(ws))
	down := false
	for i := range ws {
		if down {
			errs[i] = fmt.Errorf("write: %w: not tried", drivers.ErrLink)
			continue
		}
		errs[i] = d.writeOne(ctx, &ws[i])
		down = errors.Is(errs[i], drivers.ErrLink)
	}
	return errs
}

// writeOne writes one value and, where the tag says so, reads it back.
func (d *driver) writeOne(ctx context.Context, w *drivers.Write) error {
	g := d.groups[w.Group.Device][w.Group.Group]
	f := &g.fields[w.Tag]
	if f.readOnly() {
		return fmt.Errorf("write %s: it can only be read", f.address)
	}
	err := d.link.back(ctx, g.unit.timeout)
	if err == nil {
		err = d.put(ctx, g.unit, f, w)
	}
	if d.link.closeAfter && d.link.wire != nil {
		d.link.leave()
	}
	return d.writeError(g.unit, f, err)
}

// CheckWrite says why a write can never succeed: see drivers.WriteChecker.
func (d *driver) CheckWrite(w drivers.Write) (err error) {
	f := &d.groups[w.Group.Device][w.Group.Group].fields[w.Tag]
	switch c := f.check(); {
	case f.readOnly():
		return cannot("%s can only be read", f.address)
	case c != nil && c.flags != nil:
		return cannot("a tag with flags can only be read")
	case f.kind == kindFloat16:
		_, err = f.encode(w.Value)
	case w.Value.Kind == telemetry.KindNone:
		err = f.tooLong()
	case f.table == coil:
		_, err = f.encodeBool(w.Value)
	case f.partial():
		_, _, err = f.encodeBits(w.Value)
	default:
		_, err = f.encode(w.Value)
	}
	return err
}

// writeError says what came of a write.
func (d *driver) writeError(u *unit, f *field, err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case exception:
		if e == illegalFunction && f.function != 0 {
			return fmt.Errorf("write %s: %w; leave write_function: %d out", f.address, e, f.function)
		}
		return fmt.Errorf("write %s: %w", f.address, e)
	case *loss:
		return fmt.Errorf("write %s: %s; it is not known whether the device took it: read it back", f.address, e.words(u.timeout))
	case *encodeError, *readBackError:
		return fmt.Errorf("write %s: %w", f.address, e)
	}
	return fmt.Errorf("write %s: %w: %w", f.address, drivers.ErrLink, err)
}

// put encodes the value and makes the request that fits.
func (d *driver) put(ctx context.Context, u *unit, f *field, w *drivers.Write) error {
	if f.table == coil {
		on, err := f.encodeBool(w.Value)
		if err != nil {
			return err
		}
		return d.putCoil(ctx, u, f, on)
	}
	if f.partial() {
		v, mask, err := f.encodeBits(w.Value)
		if err != nil {
			return err
		}
		return d.putBits(ctx, u, f, v, mask)
	}
	words, err := f.encode(w.Value)
	if err != nil {
		return err
	}
	return d.putRegisters(ctx, u, f, words)
}

// putCoil uses the tag's function, else 5, or 15 for a device that does not know 5.
func (d *driver) putCoil(ctx context.Context, u *unit, f *field, on bool) error {
	one, many := [2]byte{0, 0}, byte(0)
	if on {
		one, many = [2]byte{0xff, 0}, 1
	}
	err := illegalFunction.as()
	if f.function == writeCoil || f.function == 0 && !u.many {
		err = d.send(ctx, u, 5, writeCoil, byte(f.number>>8), byte(f.number), one[0], one[1])
	}
	if err == illegalFunction && f.function != writeCoil {
		if err = d.send(ctx, u, 5, writeCoils, byte(f.number>>8), byte(f.number), 0, 1, 1, many); err == nil && f.function == 0 {
			u.many = true
		}
	}
	if err != nil || !f.readBack {
		return err
	}
	return d.compare(ctx, u, f, []byte{many})
}

// putRegisters uses the tag's function, else 6 for one register, or 16 for several and for a device that does not know 6.
func (d *driver) putRegisters(ctx context.Context, u *unit, f *field, words []byte) error {
	if f.function == readWriteRegisters {
		return d.putAndRead(ctx, u, f, words)
	}
	err := illegalFunction.as()
	if f.function == writeRegister || f.function == 0 && len(words) == 2 && !u.many {
		err = d.send(ctx, u, 5, writeRegister, byte(f.number>>8), byte(f.number), words[0], words[1])
	}
	if err == illegalFunction && f.function != writeRegister {
		pdu := append([]byte{writeRegisters, byte(f.number >> 8), byte(f.number), 0, byte(len(words) / 2), byte(len(words))}, words...)
		if err = d.send(ctx, u, 5, pdu...); err == nil && f.function == 0 && len(words) == 2 {
			u.many = true
		}
	}
	if err != nil || !f.readBack {
		return err
	}
	return d.compare(ctx, u, f, words)
}

// putAndRead uses function 23, whose answer has what the registers hold after the write.
func (d *driver) putAndRead(ctx context.Context, u *unit, f *field, words []byte) error {
	high, low, n := byte(f.number>>8), byte(f.number), byte(len(words)/2)
	pdu := append([]byte{readWriteRegisters, high, low, 0, n, high, low, 0, n, 2 * n}, words...)
	q := &request{unit: u.id, pdu: pdu, want: len(words), units: u.acceptUnit, transactions: u.acceptTransaction, writes: true}
	got, err := d.exchange(ctx, u, q)
	if err == nil && !bytes.Equal(got[2:], words) {
		return &readBackError{}
	}
	return err
}

// putBits changes some bits of a register: with function 22, in which the device sees to it that nobody else's change gets
// lost, or by reading and writing the register where it does not know that.
func (d *driver) putBits(ctx context.Context, u *unit, f *field, v, mask uint16) error {
	err := illegalFunction.as()
	if !u.noMask {
		err = d.send(ctx, u, 7, maskRegister, byte(f.number>>8), byte(f.number), byte(^mask>>8), byte(^mask), byte(v>>8), byte(v))
		u.noMask = err == illegalFunction
	}
	if err == illegalFunction {
		var old []byte
		if old, err = d.fetch(ctx, u, f); err == nil {
			word := binary.BigEndian.Uint16(old)&^mask | v
			err = d.putRegisters(ctx, u, &field{address: f.address}, binary.BigEndian.AppendUint16(nil, word))
		}
	}
	if err != nil || !f.readBack {
		return err
	}
	now, err := d.fetch(ctx, u, f)
	if err == nil && binary.BigEndian.Uint16(now)&mask != v {
		return &readBackError{}
	}
	return err
}

// as returns the exception as an error.
func (e exception) as() error { return e }

// send makes one request that writes; the answer repeats its first bytes.
func (d *driver) send(ctx context.Context, u *unit, echo int, pdu ...byte) error {
	q := &request{unit: u.id, pdu: pdu, want: -1, echo: echo, units: u.acceptUnit, transactions: u.acceptTransaction, writes: true}
	if err := d.listens(ctx, u, q); err != nil {
		return err
	}
	_, err := d.exchange(ctx, u, q)
	return err
}

// listens finds out whether the adapter hears itself, before a write whose answer is like the request: a read says so, whatever comes of it.
func (d *driver) listens(ctx context.Context, u *unit, q *request) error {
	if d.link.framing == mbap || !q.mirrored() || d.link.strays.knows {
		return nil
	}
	code := byte(readHolding)
	if q.pdu[0] == writeCoil {
		code = readCoils
	}
	r := &request{unit: u.id, pdu: []byte{code, q.pdu[1], q.pdu[2], 0, 1}, units: u.acceptUnit, transactions: u.acceptTransaction}
	_ = r.reads(code)
	_, err := d.attempt(ctx, u, r, r, u.timeout)
	if l := asLoss(err); l != nil && l.kind != lossClosed {
		return nil
	} else if l != nil {
		return d.mend(ctx, u, l)
	}
	if _, refused := err.(exception); refused {
		return nil
	}
	return err
}

// fetch reads the registers, or the coil, of a field.
func (d *driver) fetch(ctx context.Context, u *unit, f *field) ([]byte, error) {
	count := uint32(max(f.count, 1))
	b := block{span: &span{table: f.table}, first: f.number, count: count}
	pdu, err := d.exchange(ctx, u, d.readRequest(u, &b))
	if err != nil {
		return nil, err
	}
	return pdu[2:], nil
}

// readBackError says that the device confirmed a write and holds something else.
type readBackError struct{}

func (*readBackError) Error() string {
	return "the device confirmed it and holds another value; is it write-protected, or changed by the device itself?"
}

func (d *driver) compare(ctx context.Context, u *unit, f *field, want []byte) error {
	got, err := d.fetch(ctx, u, f)
	if err == nil && f.table == coil {
		got = []byte{got[0] & 1}
	}
	if err == nil && !bytes.Equal(got, want) {
		return &readBackError{}
	}
	return err
}
