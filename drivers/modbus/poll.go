package modbus

import (
	"context"
	"fmt"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// poll is one Read: the blocks still to ask and what came of the others.
type poll struct {
	*group
	out      []telemetry.Reading
	now      time.Time
	queue    []*block
	answered int // answers so far, exceptions included
	refused  int // exceptions that taught something
	lost     int // requests without a right answer
	retried  bool
	over     string // why nothing more is asked, "" = go on
	changed  bool   // some block is not as it was
	splits   []split
}

// run asks every block of the group that is worth it. It fails only when nothing was answered at all:
// what the device did say is delivered, with bad readings beside it.
func (d *driver) run(ctx context.Context, g *group, out []telemetry.Reading) error {
	if d.link.client == nil {
		return errNotConnected
	}
	p := &d.poll
	p.begin(g, out, d.now())
	for i := 0; i < len(p.queue); i++ { // the queue grows while blocks are split
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.ask(ctx, p.queue[i]); err != nil {
			return err
		}
	}
	p.learn()
	return nil
}

// ask reads one block and sees to whatever comes of it.
func (d *driver) ask(ctx context.Context, b *block) error {
	p := &d.poll
	if p.over != "" {
		p.bad(b, p.over)
		return nil
	}
	if !p.worth(b) {
		return nil
	}
	err := d.request(b)
	if err == nil {
		p.took(b)
		return nil
	}
	if code, words := exception(err); words != "" {
		if code == pathUnavailable || code == targetUnreachable {
			p.bad(b, words)
			return p.silent(words) // a gateway speaks for the device: the connection is good
		}
		p.refuse(b, code, words)
		return nil
	}
	return d.lose(ctx, b, err)
}

// request reads one block and decodes the answer.
func (d *driver) request(b *block) error {
	p := &d.poll
	start := d.now()
	if b.table.bits() {
		data, err := d.link.bits(p.unit, b.table, b.first, b.count)
		if err == nil {
			decodeBits(b.ops, data, b.first, middle(start, d.now()), p.out)
		}
		return err
	}
	data, err := d.link.registers(p.unit, b.table, b.first, b.count)
	if err == nil {
		p.decodeRegisters(b.ops, data, b.first, middle(start, d.now()), p.out)
	}
	return err
}

// middle is the source time of an answer: the middle of its request, in µs. Half the time that passed by
// the monotonic clock, so that a clock set meanwhile does no harm.
func middle(start, end time.Time) int64 {
	return start.Add(end.Sub(start) / 2).UnixMicro()
}

// bad gives every tag of a block a bad reading.
func (p *poll) bad(b *block, reason string) {
	at := p.now.UnixMicro()
	for i := range b.ops {
		tag := b.ops[i].tag
		p.out[tag] = telemetry.BadReading(int(tag), at, reason)
	}
}

// lose mends the connection after a request without a right answer, and says what that means for the poll.
func (d *driver) lose(ctx context.Context, b *block, cause error) error {
	p := &d.poll
	reason := d.link.loss(cause)
	err := d.link.reopen(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && cut(cause) && !p.retried {
		p.retried = true
		return d.ask(ctx, b)
	}
	p.bad(b, reason)
	p.suspect(b, reason)
	if err == nil {
		return p.silent(reason)
	}
	if p.answered == 0 {
		return fmt.Errorf("%s, and connect again: %w", reason, err)
	}
	p.over = reason // deliver what there is; the next Read finds the link down
	return nil
}

// silent is called when the device gave no right answer though the link is good: an error while it has
// answered nothing in this poll, and after a second time nothing more is asked.
func (p *poll) silent(reason string) error {
	if p.answered == 0 {
		return fmt.Errorf("%w: unit %d: %s", drivers.ErrDevice, p.unit, reason)
	}
	if p.lost++; p.lost >= 2 {
		p.over = reason
	}
	return nil
}
