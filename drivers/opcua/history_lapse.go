package opcua

import (
	"context"
	"errors"
	"fmt"

	"millrace/drivers"
)

// settle waits until the server has answered about its conditions: one thing at a time that it may not bear, so that it is known which one that was.
func (f *feed) settle(ctx context.Context) error {
	if !f.running() {
		return nil
	}
	select {
	case <-f.asks:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := f.link.channel.Err(); err != nil {
		return judged(err, true, f.link.timeout)
	}
	return nil
}

// historyOf names the history of a group in lapsed.
func historyOf(ref drivers.Ref) string { return fmt.Sprintf("history of group %d", ref.Group) }

// unborne is why the server is not asked for history.
const unborne = "the server is not asked for history, because it drops the connection, or does not answer, when it is; it is asked again after an hour"

// lapse takes how asking for the history of a group has ended. An error of a lost link names it.
func (d *driver) lapse(ref drivers.Ref, err error) error {
	lost := d.link.channel.Err()
	d.lost.note(historyOf(ref), lost)
	d.lost.note(anyHistory, lost)
	if lost == nil || errors.Is(lost, context.Canceled) {
		return err
	}
	return over(err, anyHistory)
}
