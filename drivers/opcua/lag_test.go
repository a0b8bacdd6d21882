package opcua

import (
	"slices"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

// dateTime is a moment as a server says it.
func dateTime(at time.Time) int64 { return at.UnixMicro()*10 - firstTick }

// TestLag: a message counts from when it was sent, or somewhat before that, and never from before it was asked for, whatever the clocks say and however long the
// path is slow.
func TestLag(t *testing.T) {
	const way = 20 * time.Millisecond // there, and back
	begin := time.Now()
	ahead := time.Duration(0) // of the server's clock
	var l lag
	at := func(after, age, held time.Duration) time.Duration { // what was asked for so long before it was sent then, and was held up on its way
		sent := begin.Add(after)
		return l.of(sent.Add(-age-way), sent.Add(way+held), dateTime(sent.Add(ahead))).Round(time.Millisecond)
	}
	want := func(what string, got, want time.Duration) {
		t.Helper()
		if got != want {
			t.Errorf("%s: a lag of %v, want %v", what, got, want)
		}
	}
	for _, off := range []time.Duration{0, 2 * time.Hour, -400 * 24 * time.Hour} {
		l, ahead = lag{}, off
		want("the first, which took long", at(0, time.Second, 0), time.Second+2*way)
		want("one that took the shortest way", at(time.Second, 0, 0), 2*way)
		want("held up", at(2*time.Second, 10*time.Second, 30*time.Second), 30*time.Second+2*way)
		want("behind it", at(31*time.Second, 10*time.Second, 0), 2*way)
		for n := range 100 {
			want("the path is slow for good", at(time.Minute+time.Duration(n)*time.Minute, 10*time.Second, 8*time.Second), 8*time.Second+2*way)
		}
		ahead += time.Hour
		want("the server's clock is set forward", at(162*time.Minute, 10*time.Second, 0), 2*way)
		want("held up then", at(163*time.Minute, 10*time.Second, 8*time.Second), 8*time.Second+2*way)
		ahead -= 10 * time.Minute
		want("it is set back", at(164*time.Minute, 10*time.Second, 0), 10*time.Second+2*way)
		want("held up then", at(165*time.Minute, 10*time.Second, 5*time.Second), 15*time.Second+2*way)
		want("another took the shortest way", at(166*time.Minute, 0, 0), 2*way)
		want("behind that", at(167*time.Minute, 10*time.Second, 0), 2*way)
	}
	for name, sent := range map[string]int64{"none": 0, "before 1601": -5, "the year 1601": 1, "the year 9999": lastTick - firstTick, "behind all": 1<<63 - 1, "the year 2300": dateTime(time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC))} {
		want(name, l.of(begin.Add(-time.Second), begin, sent), time.Second)
	}
	want("no time changes nothing", at(179*time.Minute, 10*time.Second, 5*time.Second), 5*time.Second+2*way)
	if n := testing.AllocsPerRun(10, func() { l.of(begin, begin, dateTime(begin)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// lateResponse is the body of a Publish response that was sent so long ago.
func lateResponse(t *testing.T, sequence uint32, ago time.Duration, more bool, parts ...any) []byte {
	m := &ua.NotificationMessage{SequenceNumber: sequence}
	if ago >= 0 {
		m.PublishTime = time.Now().Add(-ago)
	}
	for _, p := range parts {
		m.NotificationData = append(m.NotificationData, ua.NewExtensionObject(p))
	}
	b, err := ua.Encode(&ua.PublishResponse{ResponseHeader: &ua.ResponseHeader{Timestamp: time.Now().Add(-ago.Abs()), ServiceDiagnostics: &ua.DiagnosticInfo{},
		AdditionalHeader: ua.NewExtensionObject(nil)}, SubscriptionID: 7, MoreNotifications: more, NotificationMessage: m})
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{1, 0, 0x3d, 0x03}, b...)
}

// TestLateMessages: pushes tell until when nothing is missing by when the server sent them, not by when they were taken; all of a message but its last push, and what
// comes while the server has more, tells the time of what came before.
func TestLateMessages(t *testing.T) {
	f, s := offline(2)
	begin := time.Now()
	s.came = begin.Add(-time.Hour)
	overflow := changes(int32(1), int32(2))
	overflow.MonitoredItems[1].Value.EncodingMask |= ua.DataValueStatusCode
	overflow.MonitoredItems[1].Value.Status = overflowed
	take := func(name string, body []byte, want ...time.Duration) {
		t.Helper()
		f.sought, f.came = begin.Add(-time.Hour), time.Now()
		if err := f.answer(body, nil); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []time.Duration
		for len(f.pushes) > 0 {
			got = append(got, begin.Sub((<-f.pushes).At).Round(time.Minute))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: pushes tell %v ago, want %v", name, got, want)
		}
	}
	f.lag.of(begin, begin, dateTime(begin)) // the answer to the request for its items
	sequence := uint32(0)
	next := func(ago time.Duration, more bool, parts ...any) []byte {
		sequence++
		return lateResponse(t, sequence, ago, more, parts...)
	}
	const m = time.Minute
	take("sent 50 minutes ago", next(50*m, false, changes(int32(1))), 50*m)
	take("two parts", next(40*m, false, overflow, changes(int32(1))), 50*m, 40*m)
	take("the server has more", next(30*m, true, changes(int32(1))), 40*m)
	take("that", next(29*m, true, overflow), 40*m)
	take("and no more", next(28*m, false, overflow), 28*m)
	many := &ua.DataChangeNotification{MonitoredItems: slices.Repeat(overflow.MonitoredItems, maxPush/2+1)}
	take("more than one push", next(20*m, false, many), 28*m, 20*m)
	take("before what came", next(25*m, false, changes(int32(1))), 20*m)
	take("without a time of its own", next(-15*m, false, changes(int32(1))), 15*m)
	take("a keep-alive", lateResponse(t, sequence+1, 10*m, false), 10*m)
	take("in time", next(0, false, changes(int32(1))), 0)
	s.came = begin.Add(-time.Hour)
	for range maxBehind - 1 {
		s.arrived(begin, true)
	}
	if !s.came.Equal(begin.Add(-time.Hour)) {
		t.Error("believed too short")
	}
	if s.arrived(begin, true); !s.came.Equal(begin) {
		t.Error("a server that always has more is believed for ever")
	}
}

// TestVerifiedSince: a read that differs tells a gap from when the value was sent.
func TestVerifiedSince(t *testing.T) {
	v := newVerified(time.Second, 1)
	now := time.Now()
	v.note(0, &wire.DataValue{}, now, now.Add(-time.Minute))
	if got := v.pushed[0]; !got.at.Equal(now) || !got.held.Equal(now.Add(-time.Minute)) {
		t.Errorf("%+v", got)
	}
}
