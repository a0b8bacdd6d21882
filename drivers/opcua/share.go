package opcua

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gopcua/opcua/id"

	"millrace/drivers"
)

// Each group has a subscription of its own, where the server has enough. Small ones have only a few, or one: then groups share it. It publishes as often as the fastest of them wants, each is sampled at its own
// interval, and what is missing of its messages may be missing of each.

// subscription is one of the server's, of one group or of several.
type subscription struct {
	terms
	members []*member
	handles int           // of items, given to members so far
	next    uint32        // the sequence number of its next message
	heard   time.Time     // when the last one was taken
	came    time.Time     // up to then the server has sent all that it had: when the last one would have come without a lag
	behind  int           // messages in a row behind which it had more to send
	quiet   time.Duration // how long it may say nothing
	refresh bool          // the server wants to be asked for its conditions
	asked   time.Time     // when it was
}

// member is a group in the subscription that pushes it. The handle of an item is its tag, behind the handles of the members before.
type member struct {
	*subscription
	ref        drivers.Ref
	group      *group
	base       int            // the handle of its first tag
	told       time.Time      // up to then nothing is missing of what was handed on: see drivers.Push
	refused    []int          // tags that the server does not monitor, tried again now and then
	reasons    map[int]string // why
	items      []uint32       // the ids of its monitored items, by tag; 0 = none
	dead       map[int]uint32 // tags whose nodes are gone, and the status that said so
	retry      time.Time
	*verified               // nil = it is not
	refreshing map[int]bool // of tags of events to which the server marks that it tells its conditions: whether it does so now
	untyped    string       // an event_type of OPC UA's namespace that neither the server nor we know, the last; "" = none
	burst      burst
	listens    int64 // µs since 1970, by the server's clock: since when it monitors for us
	marks      marks
	silence    *silence // nil = its tags may be silent for as long as they like
}

// add makes a group a member.
func (s *subscription) add(ref drivers.Ref, g *group, verify time.Duration) *member {
	now := time.Now()
	m := &member{subscription: s, ref: ref, group: g, base: s.handles, reasons: map[int]string{}, items: make([]uint32, len(g.tags)), dead: map[int]uint32{}, refreshing: map[int]bool{},
		retry: now.Add(asideTime), verified: newVerified(verify, len(g.tags)), silence: newSilence(g, now)}
	s.handles += len(g.tags)
	s.members = append(s.members, m)
	return m
}

// of returns the member and the tag of an item, by its handle; nil when the member has left, and an error when there never was one.
func (s *subscription) of(handle uint32) (*member, int, error) {
	if int64(handle) >= int64(s.handles) {
		return nil, 0, protocolError("the server reports a value that was not asked for")
	}
	for _, m := range s.members {
		if tag := int(handle) - m.base; tag >= 0 && tag < len(m.group.tags) {
			return m, tag, nil
		}
	}
	return nil, 0, nil
}

// carrier creates a subscription for a group, or finds one to share when the server has no more.
func (f *feed) carrier(ctx context.Context, asked terms) (*subscription, error) {
	if f.full != "" {
		return f.join(ctx, asked)
	}
	got, err := f.createSubscription(ctx, asked)
	if refused := statusError(0); len(f.subs) > 0 && errors.As(err, &refused) {
		f.full = refused.Error()
		return f.join(ctx, asked)
	}
	if err != nil {
		return nil, err
	}
	s := &subscription{terms: got, next: 1, quiet: quiet(got, f.set.quiet)}
	f.subs[s.id] = s
	return s, nil
}

// createSubscription has the server make a subscription (OPC 10000-4, 5.13.2). With the id of another one its values could not be told from that one's.
func (f *feed) createSubscription(ctx context.Context, asked terms) (terms, error) {
	r, err := f.call(ctx, id.CreateSubscriptionRequest_Encoding_DefaultBinary, id.CreateSubscriptionResponse_Encoding_DefaultBinary, encodeCreateSubscription(asked, maxPush))
	if err != nil {
		return terms{}, err
	}
	got := r.terms()
	switch {
	case r.Err != nil:
		return terms{}, r.Err
	case f.subs[got.id] != nil:
		return terms{}, protocolError("the server gave two subscriptions one id")
	}
	return got, nil
}

// join returns the subscription that a group shares: of those that publish as often as it wants the slowest, else the fastest, which the server is asked to make as fast.
func (f *feed) join(ctx context.Context, asked terms) (*subscription, error) {
	var best *subscription
	for _, n := range slices.Sorted(maps.Keys(f.subs)) {
		s := f.subs[n]
		fits := s.publish <= asked.publish
		switch {
		case best == nil, fits && (best.publish > asked.publish || s.publish > best.publish), !fits && s.publish < best.publish && best.publish > asked.publish:
			best = s
		}
	}
	if best.publish <= asked.publish {
		return best, nil
	}
	asked.id = best.id
	r, err := f.call(ctx, id.ModifySubscriptionRequest_Encoding_DefaultBinary, id.ModifySubscriptionResponse_Encoding_DefaultBinary, encodeModifySubscription(asked, maxPush))
	if err != nil { // it stays as it is, which is said: see note
		return best, unlessRefused(err)
	}
	best.publish, best.life, best.keepAlive = duration(r.F64()), r.U32(), r.U32()
	best.quiet = quiet(best.terms, f.set.quiet)
	return best, r.Err
}

// encodeModifySubscription returns the body of a ModifySubscription request (OPC 10000-4, 5.13.3).
func encodeModifySubscription(t terms, most int) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		b = appendFloat(binary.LittleEndian.AppendUint32(b, t.id), millis(t.publish))
		for _, v := range [...]uint32{t.life, t.keepAlive, uint32(most)} {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		return append(b, 0), nil // priority
	}
}

// leave has the server forget what a group was subscribed to, which is polled then: its items where it shares a subscription, else that.
func (f *feed) leave(ctx context.Context, m *member) error {
	s := m.subscription
	if s.members = slices.DeleteFunc(s.members, func(o *member) bool { return o == m }); len(s.members) > 0 {
		return f.bury(m, m.group.asked())
	}
	delete(f.subs, s.id)
	return f.deleteSubscription(ctx, s.id)
}

func (f *feed) deleteSubscription(ctx context.Context, number uint32) error {
	_, err := f.call(ctx, id.DeleteSubscriptionsRequest_Encoding_DefaultBinary, id.DeleteSubscriptionsResponse_Encoding_DefaultBinary, func(b []byte) ([]byte, error) {
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, 1), number), nil
	})
	return unlessRefused(err)
}

// shared says in words that groups share the subscription, "" when it is the group's own, or another one says so: the first in the config does, for all.
func (m *member) shared(full string) string {
	if len(m.members) == 1 || slices.ContainsFunc(m.members, func(o *member) bool { return o.ref.Group < m.ref.Group }) {
		return ""
	}
	return fmt.Sprintf("has no more subscriptions (%s): %d groups share one that publishes every %s, and each is sampled at its own interval", full, len(m.members), say(m.publish))
}

// signs tells the groups of a subscription that it has said something, those at once that were told nothing for their publishing interval.
func (f *feed) signs(s *subscription, all bool) {
	f.at = s.came
	for _, m := range s.members {
		if all || s.came.After(m.told) && s.came.Sub(m.told) >= min(m.group.interval, maxPublishing) {
			f.push(m, drivers.Push{})
		}
	}
}
