package opcua

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// What a subscription is asked to be.
const (
	maxPublishing = 5 * time.Second  // between two messages; slower groups are sampled at their interval and published in this
	minQuiet      = 10 * time.Second // without a message until the server counts as silent; three publishing intervals when that is longer
	minLife       = time.Minute      // of a subscription without a request of ours
	maxQueue      = 10000
	defaultQueue  = 10 // values that the server keeps of an item until they are published
)

// Subscribe asks the server to push a group: drivers.Subscriber.
func (d *driver) Subscribe(ctx context.Context, ref drivers.Ref) (pushed bool, err error) {
	if d.link == nil {
		return false, errors.New("not connected")
	}
	g := &d.groups[ref.Device][ref.Group]
	if d.feed == nil || g.spoilt {
		return false, nil
	}
	defer caught(&err)
	if d.feed.items == 0 {
		err = d.learnItems(ctx)
	}
	if err == nil {
		err = d.feed.subscribe(ctx, ref, g)
	}
	for i := 0; i < maxHints && err == nil; i++ {
		err = d.explain(ctx, g, d.feed.first[len(d.feed.first)-1].Readings)
	}
	if err == nil && ref.Group == len(d.groups[ref.Device])-1 {
		err = d.watchModels(ctx)
	}
	var code statusError
	switch {
	case err == nil:
		return true, nil
	case !errors.As(err, &code):
		d.link.dead = true
		return false, err
	case d.set.subscribing == modeAuto:
		return false, nil
	}
	return false, fmt.Errorf(`the server refuses a subscription: %w; write "mode: auto" to have its tags polled then`, err)
}

// learnItems reads how many items a request may ask for.
func (d *driver) learnItems(ctx context.Context) (err error) {
	d.feed.items, err = d.limit(ctx, id.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall)
	return err
}

// Pushed returns the channel of pushes, and lets them begin: drivers.Subscriber.
func (d *driver) Pushed() <-chan drivers.Push {
	switch {
	case d.feed == nil:
		return nil
	case d.feed.ended == nil && len(d.feed.subs) > 0:
		d.feed.start()
	}
	return d.feed.pushes
}

// subscribe creates the subscription of a group and its items.
func (f *feed) subscribe(ctx context.Context, ref drivers.Ref, g *group) error {
	asked := termsFor(g.interval, f.set.quiet)
	r, err := f.call(ctx, id.CreateSubscriptionRequest_Encoding_DefaultBinary, id.CreateSubscriptionResponse_Encoding_DefaultBinary, encodeCreateSubscription(asked, maxPush))
	if err != nil {
		return err
	}
	s := &subscription{terms: r.terms(), ref: ref, group: g, next: 1, reasons: map[int]string{}, items: make([]uint32, len(g.tags)), dead: map[int]uint32{}, refreshing: map[int]bool{}, retry: time.Now().Add(asideTime),
		verified: newVerified(f.set.verify, len(g.tags)), silence: newSilence(g, time.Now())}
	if r.Err != nil {
		return r.Err
	}
	s.quiet = quiet(s.terms, f.set.quiet)
	f.subs[s.id] = s
	var bad []telemetry.Reading
	for tag, reason := range g.ask.reasons {
		switch {
		case g.isLost(tag), g.homeless(tag):
			bad = append(bad, s.refuse(tag, reason))
		case reason != "" && reason != shared && reason != eventsOnly:
			bad = append(bad, telemetry.BadReading(tag, 0, reason))
		}
	}
	got := revised{sampling: g.interval, queue: uint32(f.set.queue)}
	more, err := f.monitor(ctx, s, append(slices.Clone(g.ask.tags), g.listening()...), &got)
	if err == nil && got.crowded && f.set.subscribing == modeAuto && len(g.ask.filters) == 0 { // events cannot be polled
		err = statusError(ua.StatusBadTooManyMonitoredItems)
	}
	if refused := statusError(0); errors.As(err, &refused) {
		return cmp.Or(f.unsubscribe(ctx, s), err)
	}
	if err == nil && len(g.ask.filters) > 0 {
		err = f.refresh(s)
	}
	if err != nil {
		return err
	}
	f.first = append(f.first, drivers.Push{Group: ref, Readings: append(g.spreadBad(append(bad, more...)), s.begun(g.listening())...), Note: g.news(got.note(asked, f, s))})
	return nil
}

// unsubscribe has the server forget a subscription, whose group is polled then.
func (f *feed) unsubscribe(ctx context.Context, s *subscription) error {
	delete(f.subs, s.id)
	return f.deleteSubscription(ctx, s.id)
}

func (f *feed) deleteSubscription(ctx context.Context, number uint32) error {
	_, err := f.call(ctx, id.DeleteSubscriptionsRequest_Encoding_DefaultBinary, id.DeleteSubscriptionsResponse_Encoding_DefaultBinary, func(b []byte) ([]byte, error) {
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, 1), number), nil
	})
	return unlessRefused(err)
}

// listening returns the tags of events whose nodes are known.
func (g *group) listening() []int {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(g.ask.filters)), g.isLost)
}

// termsFor returns what the subscription of a group with this interval is asked to be. A keep-alive comes three times before the
// subscription counts as silent.
func termsFor(interval, quiet time.Duration) terms {
	publish := min(interval, maxPublishing)
	keepAlive := max(max(quiet, 3*publish)/3/publish, 1)
	return terms{publish: publish, keepAlive: uint32(keepAlive), life: uint32(max(3*keepAlive, minLife/publish))}
}

// quiet returns how long a subscription may say nothing. Servers may make the times between two keep-alives longer.
func quiet(got terms, least time.Duration) time.Duration {
	between := min(got.publish, 24*time.Hour) * time.Duration(min(max(got.keepAlive, 1), 1<<16))
	return max(least, 3*got.publish, min(2*between, 24*time.Hour))
}

// revised is what the server made of the wishes for a group's items.
type revised struct {
	sampling time.Duration // the longest
	queue    uint32        // the shortest
	unfit    int           // items that it takes without server_deadband only
	crowded  bool          // it has no room for more items
}

// note says in words where the server does not do what was asked for, "" when it does all.
func (v *revised) note(asked terms, f *feed, s *subscription) string {
	var words []string
	if s.publish > asked.publish {
		words = append(words, fmt.Sprintf("publishes every %s, not every %s", say(s.publish), say(asked.publish)))
	}
	if v.sampling > s.group.interval {
		words = append(words, fmt.Sprintf("samples some tags every %s, not every %s", say(v.sampling), say(s.group.interval)))
	}
	if v.queue < uint32(f.set.queue) {
		words = append(words, fmt.Sprintf("keeps %d values of some tags, not %d", v.queue, f.set.queue))
	}
	if v.unfit > 0 {
		words = append(words, "takes no server_deadband of "+telemetry.Count(v.unfit, "tag"))
	}
	if s.group.unheld != "" {
		words = append(words, s.group.unheldWords())
	}
	if usual := quiet(asked, f.set.quiet); s.quiet > usual {
		words = append(words, fmt.Sprintf("may be silent for %s, not %s, until that is noticed", say(s.quiet), say(usual)))
	}
	if len(words) == 0 {
		return ""
	}
	return "the server " + strings.Join(words, ", ")
}

// news returns a note when it differs from the last one of the group.
func (g *group) news(note string) string {
	if note == g.noted {
		return ""
	}
	g.noted = note
	return note
}

// monitor creates items for some tags, in requests that shrink when the server refuses them for their size or for one of their nodes. It
// returns readings of the tags that are refused.
func (f *feed) monitor(ctx context.Context, s *subscription, tags []int, got *revised) (bad []telemetry.Reading, err error) {
	limit, refusals := f.items, 0
	bytes := min(maxRequest, f.link.channel.Request()/2)
	for len(tags) > 0 {
		n := s.group.fit(tags, min(limit, bytes/2/itemSize), bytes/2)
		more, err := f.create(ctx, s, tags[:n], got)
		switch {
		case err == nil:
			bad, tags = append(bad, more...), tags[n:]
		case !splittable(err):
			return bad, err
		case n > 1 && refusals < maxRefusals:
			if limit = n / 2; tooMuch(err) {
				f.items = limit
			}
			refusals++
		default:
			for _, tag := range tags[:n] {
				bad = append(bad, s.refuse(tag, err.Error()))
			}
			limit, tags = f.items, tags[n:]
		}
	}
	return bad, nil
}

// create creates items in one request.
func (f *feed) create(ctx context.Context, s *subscription, tags []int, got *revised) (bad []telemetry.Reading, err error) {
	r, err := f.call(ctx, id.CreateMonitoredItemsRequest_Encoding_DefaultBinary, id.CreateMonitoredItemsResponse_Encoding_DefaultBinary,
		encodeMonitor(s.id, &s.group.ask, tags, s.group.interval, f.set.queue))
	if err != nil {
		return nil, err
	}
	if n := r.Count(4); r.Err == nil && n != len(tags) {
		return nil, protocolError(fmt.Sprintf("the server answered with %d results for %d items", n, len(tags)))
	}
	if s.listens == 0 {
		s.listens = micros(ticksOf(r.Clock))
	}
	var again []int
	for _, tag := range tags {
		i := r.item()
		switch {
		case r.Err != nil:
			return nil, r.Err
		case s.group.ask.bands[tag] > 0 && noDeadband(i.status):
			delete(s.group.ask.bands, tag)
			got.unfit++
			again = append(again, tag)
		case i.status>>31 != 0:
			got.crowded = got.crowded || i.status&0xFFFF0000 == ua.StatusBadTooManyMonitoredItems
			bad = append(bad, s.refuse(tag, f.texts.reason(i.status)))
		default:
			delete(s.reasons, tag)
			s.items[tag] = i.id
			if s.group.tags[tag].event != nil {
				continue
			}
			got.sampling, got.queue = max(got.sampling, i.sampling), min(got.queue, i.queue)
		}
	}
	if len(again) == 0 {
		return bad, nil
	}
	more, err := f.monitor(ctx, s, again, got)
	return append(bad, more...), err
}

// retryRefused tries once more some of the tags that the server does not monitor, and says where the reason is another.
func (f *feed) retryRefused(s *subscription, now time.Time) error {
	s.retry = now.Add(asideTime)
	n := min(len(s.refused), f.items)
	tags := slices.Clone(s.refused[:n])
	s.refused = slices.Delete(s.refused, 0, n)
	before := maps.Clone(s.reasons)
	if err := f.bury(s, tags); err != nil {
		return err
	}
	moved, err := f.finder.renumbered(f.ctx, &f.converter)
	if err != nil {
		return err
	}
	if moved {
		return renumberedError
	}
	tags, bad, err := f.searchLost(s, tags)
	if err != nil {
		return err
	}
	more, err := f.monitor(f.ctx, s, tags, new(revised))
	if err != nil {
		return err
	}
	bad = append(bad, more...)
	bad = slices.DeleteFunc(bad, func(r telemetry.Reading) bool { return before[int(r.Tag)] == r.Reason })
	begun := s.begun(tags)
	if f.at = s.came; len(bad)+len(begun) > 0 {
		f.push(drivers.Push{Group: s.ref, Readings: append(s.group.spreadBad(bad), begun...)})
	}
	if len(begun) > 0 {
		return f.refresh(s)
	}
	return nil
}

// searchLost looks again for the nodes of those of the tags whose browse paths have led to none, or to one that is gone; those without a namespace wait for the next session. It returns the tags that have one, and
// readings of the others.
func (f *feed) searchLost(s *subscription, tags []int) (found []int, bad []telemetry.Reading, err error) {
	var lost []int
	for _, tag := range tags {
		if s.group.homeless(tag) {
			s.refuse(tag, s.group.ask.reasons[tag])
		} else if _, dead := s.dead[tag]; s.group.isLost(tag) || dead && s.group.tags[tag].addr.kind == byPath {
			lost = append(lost, tag)
		} else {
			found = append(found, tag)
		}
	}
	if len(lost) == 0 {
		return found, nil, nil
	}
	still, err := f.finder.locate(f.ctx, s.group, lost)
	if err != nil {
		return nil, nil, err
	}
	for _, tag := range lost {
		if slices.Contains(still, tag) {
			bad = append(bad, s.refuse(tag, s.group.ask.reasons[tag]))
		} else {
			found = append(found, tag)
		}
	}
	return found, bad, nil
}

// refuse remembers that the server does not monitor a tag.
func (s *subscription) refuse(tag int, reason string) telemetry.Reading {
	s.refused = append(s.refused, tag)
	s.reasons[tag] = reason
	return telemetry.BadReading(tag, 0, reason)
}
