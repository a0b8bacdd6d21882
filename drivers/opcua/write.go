package opcua

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Write writes the values one by one: drivers.Writer. One that got no answer is never written again by itself, because nobody knows
// whether it was carried out.
func (d *driver) Write(ctx context.Context, ws []drivers.Write) []error {
	errs := make([]error, len(ws))
	down := false
	for i := range ws {
		if down {
			errs[i] = fmt.Errorf("write: %w: not tried", drivers.ErrLink)
			continue
		}
		t := &d.groups[ws[i].Group.Device][ws[i].Group.Group].tags[ws[i].Tag]
		if err := d.writeOne(ctx, &ws[i], t); err != nil {
			errs[i] = fmt.Errorf("write %s: %w", t.addr, d.broken(err))
		}
		down = errors.Is(errs[i], drivers.ErrLink)
	}
	return errs
}

// WriteType says what a person writes to a tag: values of its type, else of its node's: drivers.WriteTyper.
func (d *driver) WriteType(ctx context.Context, ref drivers.Ref, tag int) (typ telemetry.DataType, array bool, err error) {
	t := &d.groups[ref.Device][ref.Group].tags[tag]
	node, err := d.target(ctx, ref, tag)
	var f form
	if err == nil {
		f, err = d.formOf(ctx, node, t.want)
	}
	if err != nil {
		return telemetry.AnyType, false, fmt.Errorf("write %s: %w", t.addr, d.broken(err))
	}
	if typ = builtins[f.kind].typ; t.want.word != "" && t.want.part == nil {
		typ = builtins[builtinOf(t.want.word)].typ
	}
	return typ, f.array, nil
}

// Unlisted says what an enumeration's numbers mean when a value for the first tag is none of them, "" when it is one, or nothing is known of that. The server may
// take it all the same.
func (c *Client) Unlisted(ctx context.Context, v telemetry.Value) string {
	if v.Kind != telemetry.KindInt && v.Kind != telemetry.KindUint {
		return ""
	}
	n, _ := c.link.types.namesOf(ctx, c.groups[0][0].ask.ids[0])
	if n == nil || n.bits {
		return ""
	}
	if _, known := n.of[int64(v.Bits)]; known {
		return ""
	}
	var words []string
	for _, number := range slices.Sorted(maps.Keys(n.of)) {
		if words = append(words, fmt.Sprintf("%d=%s", number, clip(n.of[number]))); len(words) == 2*maxHints {
			words = append(words, "…")
			break
		}
	}
	return strings.Join(words, ", ")
}

// CheckWrite says why a write can never succeed: drivers.WriteChecker. What the node takes, only the server knows.
func (d *driver) CheckWrite(w drivers.Write) error {
	if why := d.groups[w.Group.Device][w.Group.Group].tags[w.Tag].readOnly(); why != "" {
		return unfit(why)
	}
	return nil
}

// readOnly says why a tag is not written, whatever its node is; "" = it may be.
func (t *tag) readOnly() string {
	switch {
	case t.event != nil:
		return "events cannot be written"
	case t.want.part != nil && len(t.want.part.steps) > 0:
		return "a field or element alone cannot be written; write a tag of the whole array, or call a method"
	}
	return ""
}

// ready opens the session anew where the server may have ended it for want of requests.
func (d *driver) ready(ctx context.Context) error {
	if d.link != nil && d.link.expired() && !d.feed.running() {
		if err := d.Connect(ctx); err != nil {
			return err
		}
	}
	if d.link == nil {
		return errors.New("not connected")
	}
	return nil
}

// target returns the node of a tag, on a session that stands.
func (d *driver) target(ctx context.Context, ref drivers.Ref, tag int) (_ []byte, err error) {
	defer caught(&err)
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	g := &d.groups[ref.Device][ref.Group]
	if why := g.tags[tag].readOnly(); why != "" {
		return nil, unfit(why)
	}
	if g.ask.ids[tag] == nil {
		return nil, unfit(g.ask.reasons[tag])
	}
	return askedNode(g.ask.ids[tag]), nil
}

// broken makes errors.Is find drivers.ErrLink in an error after which the link is of no use.
func (d *driver) broken(err error) error {
	var no unfit
	var refused refusal
	var other *readBackError
	if errors.As(err, &no) || errors.As(err, &refused) || errors.As(err, &other) || unlessRefused(err) == nil {
		return err
	}
	if d.link != nil {
		d.link.dead = true
	}
	return fmt.Errorf("%w: %w", drivers.ErrLink, err)
}

// writeOne writes one value and, where the tag says so, reads it back.
func (d *driver) writeOne(ctx context.Context, w *drivers.Write, t *tag) (err error) {
	defer caught(&err)
	node, err := d.target(ctx, w.Group, w.Tag)
	if err != nil {
		return err
	}
	f, err := d.formOf(ctx, node, t.want)
	if err != nil {
		return err
	}
	variant, err := f.appendVariant(nil, w.Value)
	if err != nil {
		return err
	}
	if err := d.put(ctx, node, variant); err != nil || !t.readBack {
		return err
	}
	return d.holds(ctx, node, variant)
}

// put writes the value of one node (OPC 10000-4, 5.10.4), without a status and times: many servers take no others.
func (d *driver) put(ctx context.Context, node, variant []byte) error {
	r, err := d.link.call(ctx, id.WriteRequest_Encoding_DefaultBinary, id.WriteResponse_Encoding_DefaultBinary, encodeWrite(node, variant))
	if err != nil {
		return unknown(err, unwritten)
	}
	n := r.Count(4)
	status := ua.StatusCode(r.U32())
	switch {
	case r.Err != nil:
		return unknown(r.Err, unwritten)
	case n != 1:
		return protocolError(fmt.Sprintf("the server answered with %d results for 1 node", n))
	case status>>30 != 0 && refusal(status).unsure():
		return unknown(refusal(status), unwritten)
	case status>>30 != 0:
		return refusal(status)
	case status&0xFFFF0000 == ua.StatusGoodCompletesAsynchronously:
		return fmt.Errorf("%w; it has taken the value and writes it later: read the tag", refusal(status))
	}
	return nil
}

// unknown says of an error behind which the link is good that it may have been done, unless the server says that it was not.
func unknown(err error, words string) error {
	var refused statusError
	if errors.As(err, &refused) {
		err = refusal(refused)
		if !refusal(refused).unsure() {
			return err
		}
	}
	var result refusal
	if errors.As(err, &result) || unlessRefused(err) == nil {
		return fmt.Errorf("%w; %s", err, words)
	}
	return err
}

// unwritten is what is to be said of a write without an answer that settles it.
const unwritten = "it is not known whether the server wrote it: read it back"

func encodeWrite(node, variant []byte) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		b = append(binary.LittleEndian.AppendUint32(b, 1), node...)
		b = binary.LittleEndian.AppendUint32(b, uint32(ua.AttributeIDValue))
		b = append(b, 0xff, 0xff, 0xff, 0xff) // no index range
		return append(append(b, ua.DataValueValue), variant...), nil
	}
}

// readBackError says that the server confirmed a write and holds something else.
type readBackError struct{ now string }

func (e *readBackError) Error() string {
	return fmt.Sprintf("the server confirmed it and %s; does the machine change it by itself, or limit it?", e.now)
}

// holds compares what the server holds with what was written.
func (d *driver) holds(ctx context.Context, node, variant []byte) error {
	r, err := d.request(ctx, [][]byte{attributeOf(node, ua.AttributeIDValue)})
	if err != nil {
		return fmt.Errorf("the server confirmed it; read it back: %w", err)
	}
	v := r.DataValue(0)
	switch {
	case r.Err != nil:
		return r.Err
	case v.Status>>31 != 0:
		return &readBackError{"cannot read it back: " + statusText(ua.StatusCode(v.Status))}
	case bytes.Equal(v.Variant, variant):
		return nil
	}
	want, _ := d.decode.value(variant, wanted{})
	got, reason := d.decode.value(v.Variant, wanted{})
	if reason == "" && got == want { // a localized text has got a locale
		return nil
	}
	return &readBackError{"holds " + describe(got)}
}
