package opcua

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// Bounds of what is pushed.
const (
	maxPushes  = 4    // that wait to be taken; then the server's queues have to hold what comes
	maxPush    = 1000 // readings of one push
	maxPublish = 16   // Publish requests that wait at the server
	maxBehind  = 1000 // messages in a row behind which a server says that it has more, until that is not believed
	maxMissing = 16   // messages that are asked for again at a time; with more between two, all are lost
)

// feed is what one session's subscriptions push. The driver fills it; from start on it belongs to a goroutine of its own, which ends
// with the link and at the latest with end.
type feed struct {
	link   *link
	set    *settings
	subs   map[uint32]*subscription
	rooms  [maxPushes + 2][]telemetry.Reading // of the pushes that wait, the one being taken and the one being filled
	room   int                                // the next of rooms
	first  []opening                          // what is told before anything is published
	full   string                             // why the server has no more subscriptions
	pushes chan drivers.Push
	off    bool // tests: nothing is missed

	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{} // closed when the goroutine has ended; nil before start
	asks   chan struct{} // closed when the server has answered about its conditions, or will not any more; nil before start
	silent bool          // it ended because the server is
	sought time.Time     // the message at hand was asked for
	came   time.Time     // and came
	lag    lag           // of messages
	at     time.Time     // of what is pushed: see drivers.Push
	last   bool          // the part at hand is the last of its message
	since  time.Time     // with an error: from when on something may be missing, where that is not the last message

	asked *wire.Call
	calls []*wire.Call // of Publish, at hand
	done  <-chan *wire.Call
	open  int // Publish requests that wait at the server
	want  int // so many should
	acks  []ack
	items int // that one request may ask for; 0 when not known yet
	reads int // values that one request may read

	models      *modelWatch // nil = none
	modelsMoved func()      // is called when it says so

	kinds map[string]bool // encoded types of objects that an event_type names and that are not known to be none of events

	finder finder
	converter
}

func newFeed(l *link, set *settings) *feed {
	f := &feed{link: l, set: set, subs: map[uint32]*subscription{}, kinds: map[string]bool{}, pushes: make(chan drivers.Push, maxPushes), asked: wire.NewCall(), reads: maxVerified, finder: finder{lost: new(lapsed)},
		converter: converter{texts: statusTexts{}}}
	f.decode.types = l.types
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// start lets the server publish.
func (f *feed) start() {
	f.want = min(max(len(f.subs)+2, 3), maxPublish)
	f.calls, f.done = wire.NewCalls(f.want)
	f.ended, f.asks = make(chan struct{}), make(chan struct{})
	now := time.Now()
	f.at = now
	for _, s := range f.subs {
		s.heard, s.came = now, now
	}
	go f.run()
}

// running reports whether something is pushed.
func (f *feed) running() bool { return f != nil && f.ended != nil }

// end stops the goroutine and waits for it.
func (f *feed) end() {
	f.cancel()
	if f.ended == nil {
		close(f.pushes)
		return
	}
	<-f.ended
}

func (f *feed) run() {
	defer close(f.ended)
	defer close(f.pushes)
	if err := f.serve(); err != nil && f.ctx.Err() == nil {
		f.hand(drivers.Push{Err: err, Since: f.since, At: f.at})
	}
}

// serve keeps Publish requests at the server and hands on what it answers, until the link is lost or has ended.
func (f *feed) serve() (err error) {
	defer caught(&err)
	if err := f.begin(); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for err == nil {
		if err = f.publish(); err != nil {
			break
		}
		timer.Reset(time.Until(f.wake()))
		select {
		case <-f.ctx.Done():
			return nil
		case call := <-f.done:
			err = f.answered(call)
		case <-timer.C:
			err = f.overdue(time.Now())
		}
	}
	return err
}

// push hands one push of a group on, however long that takes.
func (f *feed) push(m *member, p drivers.Push) {
	p.Group, p.At = m.ref, f.at
	m.told = f.at
	f.hand(p)
}

func (f *feed) hand(p drivers.Push) {
	select {
	case f.pushes <- p:
	case <-f.ctx.Done():
	}
}

// pushPart hands on a portion of the part at hand of a message, the last of it or not. Until all of a message was handed on, what is missing began before it.
func (f *feed) pushPart(m *member, p drivers.Push, last bool) {
	before := f.at
	if f.last && last {
		f.at = m.came
	}
	f.push(m, p)
	f.at = before
}

// publish sends as many Publish requests as should wait at the server. They say what has come.
func (f *feed) publish() error {
	if err := f.link.renewed(f.ctx); err != nil {
		return err
	}
	for f.open < f.want {
		call := f.calls[len(f.calls)-1]
		body := f.link.build(id.PublishRequest_Encoding_DefaultBinary, 0, encodePublish(f.acks))
		if err := f.link.channel.Start(call, f.link.timeout, body); err != nil {
			return judged(err, true, f.link.timeout)
		}
		f.acks = f.acks[:0]
		f.calls = f.calls[:len(f.calls)-1]
		f.open++
	}
	return nil
}

// answered takes the answer to a Publish request.
func (f *feed) answered(call *wire.Call) error {
	f.open--
	f.calls = append(f.calls, call)
	defer call.Trim()
	f.sought, f.came = call.Sent(), call.At()
	return f.answer(call.Take())
}

// answer takes the body of a Publish response.
func (f *feed) answer(body []byte, err error) error {
	r := newReader(body)
	if err == nil {
		err = r.Response(id.PublishResponse_Encoding_DefaultBinary)
	}
	if err != nil {
		return f.refused(judged(err, f.link.channel.Err() != nil, f.link.timeout))
	}
	of, more := r.published()
	s := f.subs[of]
	sequence, sent, parts := r.message()
	switch {
	case r.Err != nil:
		return f.spoilt(nil, r.Err)
	case s == nil: // that of the models, or one that the server has not ended
		f.told(of, sequence, &r, parts)
		return nil
	}
	s.heard, f.at = time.Now(), s.came // until now nothing is missing; if something is, it is behind that
	if err := f.between(s, sequence); err != nil {
		return err
	}
	s.next = sequence
	if sent == 0 {
		sent = r.Clock
	}
	s.arrived(f.came.Add(-f.lag.of(f.sought, f.came, sent)), more)
	if parts == 0 {
		s.paused()
		f.signs(s, true)
		return nil
	}
	s.next = after(sequence)
	if err := f.take(s, &r, parts); err != nil {
		return err
	}
	s.paused()
	f.acks = append(f.acks, ack{s.id, sequence})
	f.signs(s, false)
	return nil
}

// arrived takes when a message would have come without a lag. While the server has more to send, what the rest of it brings is as old as what came; nothing is older
// than what came before, whatever the clocks say.
func (s *subscription) arrived(at time.Time, more bool) {
	if s.behind++; more && s.behind < maxBehind {
		return
	}
	s.behind = 0
	if at.After(s.came) {
		s.came = at
	}
}

// paused takes that a message was taken: unless the server has more to send, what comes next comes after a pause.
func (s *subscription) paused() {
	if s.behind > 0 {
		return
	}
	for _, m := range s.members {
		m.burst.over()
	}
}

// refused judges a Publish request that the server has refused.
func (f *feed) refused(err error) error {
	var code statusError
	if errors.As(err, &code) {
		switch ua.StatusCode(code) {
		case ua.StatusBadTooManyPublishRequests:
			if f.open > 0 {
				f.want = f.open
				return nil
			}
		case ua.StatusBadTimeout:
			return nil
		case ua.StatusBadNoSubscription:
			return fmt.Errorf("the server has ended the subscription: %w", err)
		}
	}
	return f.spoilt(nil, err)
}

// after returns the sequence number behind n (OPC 10000-4, 7.26): there is no 0.
func after(n uint32) uint32 {
	if n+1 == 0 {
		return 1
	}
	return n + 1
}

// between asks again for the messages between the last one of a subscription and this one.
func (f *feed) between(s *subscription, sequence uint32) error {
	missing := sequence - s.next
	if missing == 0 || missing > 1<<31 || sequence == 0 { // a server that counts anew has lost nothing by that
		return nil
	}
	lost := 0
	if missing > maxMissing {
		lost, s.next = int(min(missing, maxPush)), sequence
	}
	for ; s.next != sequence; s.next = after(s.next) {
		came, err := f.again(s)
		if err != nil {
			return err
		}
		if !came {
			lost++
		}
	}
	if lost > 0 {
		for _, m := range s.members {
			f.push(m, drivers.Push{Lost: lost, Note: "messages of the subscription are lost, and the server does not have them any more"})
		}
	}
	return nil
}

// again asks for the next message of a subscription once more, and reports whether the server still had it.
func (f *feed) again(s *subscription) (bool, error) {
	a := ack{s.id, s.next}
	r, err := f.call(f.ctx, id.RepublishRequest_Encoding_DefaultBinary, id.RepublishResponse_Encoding_DefaultBinary, encodeRepublish(a))
	var code statusError
	if errors.As(err, &code) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, _, parts := r.message()
	if r.Err != nil {
		return false, f.spoilt(s, r.Err)
	}
	if err := f.take(s, &r, parts); err != nil {
		return false, err
	}
	f.acks = append(f.acks, a)
	return true, nil
}

// call makes a request and waits for its answer, as link.call does.
func (f *feed) call(ctx context.Context, service, want uint16, body func(b []byte) ([]byte, error)) (reader, error) {
	r, err := f.link.exchange(ctx, f.asked, f.link.timeout, service, want, body)
	if err != nil {
		return r, judged(err, f.link.channel.Err() != nil, f.link.timeout)
	}
	f.lag.of(f.asked.Sent(), f.asked.At(), r.Clock)
	return r, nil
}

// take hands on the parts of a message.
func (f *feed) take(s *subscription, r *reader, parts int) error {
	for ; parts > 0; parts-- {
		f.last = parts == 1
		kind, body := r.part()
		if r.Err != nil {
			return f.spoilt(s, r.Err)
		}
		var err error
		switch kind {
		case dataPart:
			err = f.data(s, &body)
		case eventPart:
			if err = f.events(s, &body); err == nil && s.refresh {
				err = f.refresh(s)
			}
		case statusPart:
			err = f.changed(ua.StatusCode(body.U32()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// changed takes what has become of a subscription.
func (f *feed) changed(status ua.StatusCode) error {
	if status>>31 == 0 && status != ua.StatusGoodSubscriptionTransferred {
		return nil
	}
	return fmt.Errorf("the server has ended the subscription: %w", statusError(status))
}

// spoilt remembers that the groups of a subscription cannot be pushed, nil for any, because one of its values spoils the messages: polls find out which.
func (f *feed) spoilt(of *subscription, err error) error {
	if err == nil || !splittable(err) {
		return err
	}
	for _, s := range f.subs {
		for _, m := range s.members {
			m.group.spoilt = m.group.spoilt || of == nil || s == of
		}
	}
	return fmt.Errorf("%w; the tags are polled from now on", err)
}

// wake returns when there is something to do though the server says nothing.
func (f *feed) wake() time.Time {
	at, _ := f.link.channel.Times()
	soon := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	for _, s := range f.subs {
		soon(s.heard.Add(s.quiet))
		for _, m := range s.members {
			if len(m.refused) > 0 {
				soon(m.retry)
			}
			if m.verified != nil {
				soon(m.due)
			}
			if !m.group.about.over {
				soon(m.group.about.next)
			}
			if m.silence != nil {
				soon(m.silence.due)
			}
			if len(m.marks.tags) > 0 {
				soon(m.marks.due)
			}
		}
	}
	return at
}

// overdue looks for subscriptions that say nothing, and for what is due of their groups.
func (f *feed) overdue(now time.Time) error {
	select {
	case call := <-f.done: // it says something after all
		return f.answered(call)
	default:
	}
	for _, s := range f.subs {
		late := now.Sub(s.heard) - s.quiet
		switch {
		case late > time.Second: // it was us who slept, or who could not hand on
			s.heard = now.Add(grace - s.quiet)
		case late >= 0 && f.off:
			s.heard = now
		case late >= 0:
			f.silent = true
			return silentError(s.quiet)
		}
		for _, m := range s.members {
			if err := f.due(m, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// due tries refused tags of a group again, and looks after the others.
func (f *feed) due(m *member, now time.Time) error {
	if len(m.refused) > 0 && !now.Before(m.retry) {
		if err := f.retryRefused(m, now); err != nil {
			return err
		}
	}
	if m.group.about.due(now) {
		f.link.types.details(f.ctx, m.group, now)
	}
	if m.verified != nil && !now.Before(m.due) {
		if err := f.verify(m, now); err != nil {
			return err
		}
	}
	if m.silence != nil && !now.Before(m.silence.due) {
		f.hush(m, now)
	}
	if len(m.marks.tags) > 0 && !now.Before(m.marks.due) {
		return f.unmark(m, now)
	}
	return nil
}

// grace is how long a server has to be heard after the gateway itself was held up.
const grace = 2 * time.Second

// silentError says that a subscription has been silent for so long.
type silentError time.Duration

func (e silentError) Error() string {
	return fmt.Sprintf("no answer: the server has published nothing for %v", time.Duration(e))
}
