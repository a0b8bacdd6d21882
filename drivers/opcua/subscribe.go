package opcua

import (
	"cmp"
	"context"
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
		err = d.explain(ctx, g, d.feed.first[len(d.feed.first)-1].readings)
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
	return false, fmt.Errorf(`the server refuses a subscription: %w; write "mode: auto" to have its values polled then`, err)
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

// opening is what is told of a group before anything is published.
type opening struct {
	member   *member
	asked    terms
	got      revised
	readings []telemetry.Reading // of tags that are refused
}

// subscribe creates the subscription of a group, or lets it share one, and its items.
func (f *feed) subscribe(ctx context.Context, ref drivers.Ref, g *group) error {
	asked := termsFor(g.interval, f.set.quiet)
	s, err := f.carrier(ctx, asked)
	if err != nil {
		return err
	}
	m := s.add(ref, g, f.set.verify)
	var bad []telemetry.Reading
	for tag, reason := range g.ask.reasons {
		switch {
		case g.isLost(tag), g.homeless(tag):
			bad = append(bad, m.refuse(tag, reason))
		case reason != "" && reason != shared && reason != eventsOnly:
			bad = append(bad, telemetry.BadReading(tag, 0, reason))
		}
	}
	got := revised{sampling: g.interval, queue: uint32(f.set.queue), events: eventQueue}
	more, err := f.begins(ctx, m, append(slices.Clone(g.ask.tags), g.listening()...), &got)
	if err == nil && got.crowded && f.set.subscribing == modeAuto && len(g.ask.filters) == 0 { // events cannot be polled
		err = statusError(ua.StatusBadTooManyMonitoredItems)
	}
	if refused := statusError(0); errors.As(err, &refused) {
		return cmp.Or(f.leave(ctx, m), err)
	}
	if err != nil {
		return err
	}
	f.first = append(f.first, opening{m, asked, got, g.spreadBad(append(bad, more...))})
	return nil
}

// begin asks for the conditions of each subscription, once for all groups that share it, and tells what is known before anything is published.
func (f *feed) begin() error {
	if err := f.refreshAll(); err != nil {
		return err
	}
	for i := range f.first {
		o := &f.first[i]
		m, g := o.member, o.member.group
		f.push(m, drivers.Push{Readings: append(o.readings, m.begun(g.listening())...), Note: g.news(o.got.note(o.asked, f, m))})
	}
	f.first = nil
	return nil
}

// refreshAll refreshes the subscriptions that have events.
func (f *feed) refreshAll() error {
	defer close(f.asks)
	for _, s := range f.subs {
		if slices.ContainsFunc(s.members, func(m *member) bool { return len(m.group.ask.filters) > 0 }) {
			if err := f.refresh(s); err != nil {
				return err
			}
		}
	}
	return nil
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
	events   uint32        // the shortest of events
	unfit    int           // items that it takes without server_deadband only
	crowded  bool          // it has no room for more items
}

// note says in words where the server does not do what was asked for, "" when it does all.
func (v *revised) note(asked terms, f *feed, m *member) string {
	var words []string
	if text := m.shared(f.full); text != "" {
		words = append(words, text)
	}
	if m.publish > asked.publish {
		words = append(words, fmt.Sprintf("publishes every %s, not every %s", say(m.publish), say(asked.publish)))
	}
	if v.sampling > m.group.interval {
		words = append(words, fmt.Sprintf("samples some tags every %s, not every %s", say(v.sampling), say(m.group.interval)))
	}
	if v.queue < uint32(f.set.queue) {
		words = append(words, fmt.Sprintf("keeps %d values of some tags, not %d", v.queue, f.set.queue))
	}
	if v.events < eventQueue {
		words = append(words, fmt.Sprintf("keeps %s of some tags, not %d", telemetry.Count(int(v.events), "event"), eventQueue))
	}
	if v.unfit > 0 {
		words = append(words, "takes no server_deadband of "+telemetry.Count(v.unfit, "tag"))
	}
	if m.untyped != "" {
		words = append(words, fmt.Sprintf("does not know the event_type %q, nor is it one of OPC UA's own that are known here: its tag may get no events", m.untyped))
	}
	if m.group.unheld != "" {
		words = append(words, m.group.unheldWords())
	}
	if usual := quiet(asked, f.set.quiet); m.quiet > usual {
		words = append(words, fmt.Sprintf("may be silent for %s, not %s, until that is noticed", say(m.quiet), say(usual)))
	}
	if len(words) == 0 {
		return ""
	}
	return "the server " + strings.Join(words, "; it ")
}

// news returns a note when it differs from the last one of the group.
func (g *group) news(note string) string {
	if note == g.noted {
		return ""
	}
	g.noted = note
	return note
}

// begins is monitor without the tags of events of which none can come: those are refused.
func (f *feed) begins(ctx context.Context, m *member, tags []int, got *revised) ([]telemetry.Reading, error) {
	tags, bad, err := f.checkNotifiers(ctx, m, tags)
	if err != nil {
		return nil, err
	}
	more, err := f.monitor(ctx, m, tags, got)
	return append(bad, more...), err
}

// monitor creates items for some tags, in requests that shrink when the server refuses them for their size or for one of their nodes. It
// returns readings of the tags that are refused.
func (f *feed) monitor(ctx context.Context, m *member, tags []int, got *revised) (bad []telemetry.Reading, err error) {
	limit, refusals := f.items, 0
	bytes := min(maxRequest, f.link.channel.Request()/2)
	for len(tags) > 0 {
		n := m.group.fit(tags, min(limit, bytes/2/itemSize), bytes/2)
		more, err := f.create(ctx, m, tags[:n], got)
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
				bad = append(bad, m.refuse(tag, err.Error()))
			}
			limit, tags = f.items, tags[n:]
		}
	}
	return bad, nil
}

// create creates items in one request.
func (f *feed) create(ctx context.Context, m *member, tags []int, got *revised) (bad []telemetry.Reading, err error) {
	r, err := f.call(ctx, id.CreateMonitoredItemsRequest_Encoding_DefaultBinary, id.CreateMonitoredItemsResponse_Encoding_DefaultBinary,
		encodeMonitor(m.id, m.base, &m.group.ask, tags, m.group.interval, f.set.queue))
	if err != nil {
		return nil, err
	}
	if n := r.Count(4); r.Err == nil && n != len(tags) {
		return nil, protocolError(fmt.Sprintf("the server answered with %d results for %d items", n, len(tags)))
	}
	if m.listens == 0 {
		m.listens = micros(ticksOf(r.Clock))
	}
	var again []int
	for _, tag := range tags {
		i := r.item()
		switch {
		case r.Err != nil:
			return nil, r.Err
		case m.group.ask.bands[tag] > 0 && noDeadband(i.status):
			delete(m.group.ask.bands, tag)
			got.unfit++
			again = append(again, tag)
		case i.status>>31 != 0:
			got.crowded = got.crowded || i.status&0xFFFF0000 == ua.StatusBadTooManyMonitoredItems
			bad = append(bad, m.refuse(tag, f.texts.reason(i.status)))
		default:
			delete(m.reasons, tag)
			m.items[tag] = i.id
			if m.group.tags[tag].event != nil {
				m.burst.holds(tag, i.queue)
				got.events = min(got.events, cmp.Or(i.queue, eventQueue)) // none is not said
				continue
			}
			got.sampling, got.queue = max(got.sampling, i.sampling), min(got.queue, i.queue)
		}
	}
	if len(again) == 0 {
		return bad, nil
	}
	more, err := f.monitor(ctx, m, again, got)
	return append(bad, more...), err
}

// retryRefused tries once more some of the tags that the server does not monitor, and says where the reason is another.
func (f *feed) retryRefused(m *member, now time.Time) error {
	m.retry = now.Add(asideTime)
	n := min(len(m.refused), f.items)
	tags := slices.Clone(m.refused[:n])
	m.refused = slices.Delete(m.refused, 0, n)
	before := maps.Clone(m.reasons)
	if err := f.bury(m, tags); err != nil {
		return err
	}
	moved, err := f.finder.renumbered(f.ctx, &f.converter)
	if err != nil {
		return err
	}
	if moved {
		return renumberedError
	}
	tags, bad, err := f.searchLost(m, tags)
	if err != nil {
		return err
	}
	more, err := f.begins(f.ctx, m, tags, new(revised))
	if err != nil {
		return err
	}
	bad = append(bad, more...)
	bad = slices.DeleteFunc(bad, func(r telemetry.Reading) bool { return before[int(r.Tag)] == r.Reason })
	begun := m.begun(tags)
	if f.at = m.came; len(bad)+len(begun) > 0 {
		f.push(m, drivers.Push{Readings: append(m.group.spreadBad(bad), begun...)})
	}
	if len(begun) > 0 {
		return f.refresh(m.subscription)
	}
	return nil
}

// searchLost looks again for the nodes of those of the tags whose browse paths have led to none, or to one that is gone; those without a namespace wait for the next session. It returns the tags that have one, and
// readings of the others.
func (f *feed) searchLost(m *member, tags []int) (found []int, bad []telemetry.Reading, err error) {
	var lost []int
	for _, tag := range tags {
		if m.group.homeless(tag) {
			m.refuse(tag, m.group.ask.reasons[tag])
		} else if _, dead := m.dead[tag]; m.group.isLost(tag) || dead && m.group.tags[tag].addr.kind == byPath {
			lost = append(lost, tag)
		} else {
			found = append(found, tag)
		}
	}
	if len(lost) == 0 {
		return found, nil, nil
	}
	still, err := f.finder.locate(f.ctx, m.group, lost)
	if err != nil {
		return nil, nil, err
	}
	for _, tag := range lost {
		if slices.Contains(still, tag) {
			bad = append(bad, m.refuse(tag, m.group.ask.reasons[tag]))
		} else {
			found = append(found, tag)
		}
	}
	return found, bad, nil
}

// refuse remembers that the server does not monitor a tag.
func (m *member) refuse(tag int, reason string) telemetry.Reading {
	m.refused = append(m.refused, tag)
	m.reasons[tag] = reason
	return telemetry.BadReading(tag, 0, reason)
}
