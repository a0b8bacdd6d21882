package opcua

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// offline returns a feed with one subscription, number 7 of so many tags, whose link is closed.
func offline(tags int) (*feed, *member) {
	ours, theirs := net.Pipe()
	theirs.Close()
	l := &link{channel: wire.New(ours, wire.Unsecured(), func(uint32) string { return "" }), timeout: time.Second}
	l.channel.Close()
	f := newFeed(l, &settings{queue: defaultQueue, quiet: minQuiet})
	f.pushes = make(chan drivers.Push, 4096)
	s := &subscription{terms: terms{id: 7}, next: 1}
	f.subs[s.id] = s
	return f, s.add(drivers.Ref{}, &group{tags: make([]tag, tags)}, 0)
}

// publishResponse is the body of a Publish response, by the library.
func publishResponse(t testing.TB, sequence uint32, parts ...any) []byte {
	t.Helper()
	m := &ua.NotificationMessage{SequenceNumber: sequence, PublishTime: time.Now()}
	for _, p := range parts {
		m.NotificationData = append(m.NotificationData, ua.NewExtensionObject(p))
	}
	res := &ua.PublishResponse{
		ResponseHeader: &ua.ResponseHeader{Timestamp: time.Now(), ServiceDiagnostics: &ua.DiagnosticInfo{}, AdditionalHeader: ua.NewExtensionObject(nil)},
		SubscriptionID: 7, AvailableSequenceNumbers: []uint32{sequence}, NotificationMessage: m, Results: []ua.StatusCode{0},
	}
	b, err := ua.Encode(res)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{1, 0, 0x3d, 0x03}, b...) // PublishResponse, 829
}

func changes(values ...any) *ua.DataChangeNotification {
	n := &ua.DataChangeNotification{}
	for i, v := range values {
		n.MonitoredItems = append(n.MonitoredItems, &ua.MonitoredItemNotification{ClientHandle: uint32(i), Value: &ua.DataValue{
			EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp, Value: ua.MustVariant(v), SourceTimestamp: time.UnixMilli(1766480000123)}})
	}
	return n
}

// TestPublishResponses takes what a server may publish.
func TestPublishResponses(t *testing.T) {
	fine := publishResponse(t, 1, changes(int32(5), "x"))
	for name, c := range map[string]struct {
		body   []byte
		want   string // of the error
		pushed int    // readings
		spoilt bool
	}{
		"values":                         {fine, "", 2, false},
		"keep-alive":                     {publishResponse(t, 1), "", 0, false},
		"two parts":                      {publishResponse(t, 1, changes(int32(1)), changes(int32(2))), "", 2, false},
		"events, which nobody asked for": {publishResponse(t, 1, &ua.EventNotificationList{}, changes(int32(1))), "", 1, false},
		"the end": {publishResponse(t, 1, &ua.StatusChangeNotification{Status: ua.StatusBadTimeout, DiagnosticInfo: &ua.DiagnosticInfo{}}),
			"the server has ended the subscription: BadTimeout", 0, false},
		"no end":                       {publishResponse(t, 1, &ua.StatusChangeNotification{DiagnosticInfo: &ua.DiagnosticInfo{}}), "", 0, false},
		"a tag that there is not":      {publishResponse(t, 1, changes(1.5, 2.5, 3.5)), "the server reports a value that was not asked for", 0, false},
		"cut":                          {fine[:len(fine)-12-13], "; the tags are polled from now on", 0, true},
		"cut before it is known whose": {fine[:36], "; the tags are polled from now on", 0, true},
		"a message that is missing":    {publishResponse(t, 2, changes(int32(5))), "the connection is closed", 0, false}, // it is asked for again
	} {
		f, s := offline(2)
		err := f.answer(c.body, nil)
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		n := 0
		for len(f.pushes) > 0 {
			p := <-f.pushes
			n += len(p.Readings)
		}
		if n != c.pushed && err == nil || s.group.spoilt != c.spoilt {
			t.Errorf("%s: %d readings, spoilt %v", name, n, s.group.spoilt)
		}
	}
}

// TestSequence: numbers go on behind the greatest with 1, and a server that counts anew has lost nothing.
func TestSequence(t *testing.T) {
	f, s := offline(1)
	for _, n := range []uint32{1, 2, 3, 1, 2} {
		if err := f.answer(publishResponse(t, n, changes(int32(5))), nil); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
	}
	s.next = 1<<32 - 1
	for _, n := range []uint32{1<<32 - 1, 1, 2} {
		if err := f.answer(publishResponse(t, n, changes(int32(5))), nil); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
	}
	if err := f.answer(append(publishResponse(t, 1)[:28], published([]byte{1, 6, 9, 0, 0, 0})...), nil); err != nil {
		t.Fatal(err)
	}
	if len(f.pushes) != 9 || len(f.acks) != 9 || s.next != 2 {
		t.Errorf("%d pushes, %d acks, next %d", len(f.pushes), len(f.acks), s.next)
	}
}

// TestPushesDoNotOverwriteEachOther: what waits, and what was taken last, stays while the next message comes.
func TestPushesDoNotOverwriteEachOther(t *testing.T) {
	f, _ := offline(1)
	f.pushes = make(chan drivers.Push, maxPushes)
	publish := func(n int) {
		if err := f.answer(publishResponse(t, uint32(n), changes(int32(n))), nil); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n <= maxPushes; n++ {
		publish(n)
	}
	held := []drivers.Push{<-f.pushes}
	publish(maxPushes + 1)
	f.cancel() // else the next would wait for its place
	publish(maxPushes + 2)
	for len(f.pushes) > 0 {
		held = append(held, <-f.pushes)
	}
	for i, p := range held {
		if p.Readings[0].Value != telemetry.Int(int64(i+1)) {
			t.Errorf("push %d became %+v", i+1, p.Readings[0].Value)
		}
	}
	if len(held) != maxPushes+1 {
		t.Errorf("%d pushes", len(held))
	}
}

// published is a message of one value, given as bytes, behind the header.
func published(value []byte) []byte {
	word := binary.LittleEndian.AppendUint32
	b := append(word(word(nil, 7), 0), 0)               // subscription; nothing available, no more
	b = append(word(b, 1), make([]byte, 8)...)          // sequence, time
	b = append(word(b, 1), 1, 0, 0x2b, 0x03, 1)         // one part: a DataChangeNotification
	b = word(word(word(b, uint32(8+len(value))), 1), 0) // of one item, number 0
	return append(b, value...)
}

// TestMalformedEvent: events that are not what they should be have the group polled from then on, as values have; else they would end each session anew.
func TestMalformedEvent(t *testing.T) {
	f, s := offline(1)
	body := append(publishResponse(t, 1)[:28], published(make([]byte, 14))...)
	part := len(body) - 8 - 14 - 4 - 5
	copy(body[part:], []byte{1, 0, 0x94, 0x03})       // an EventNotificationList, of one event
	copy(body[len(body)-14:], []byte{5, 0, 0, 0, 63}) // of five fields, the first of a type that there is not
	var malformed malformedError
	if err := f.answer(body, nil); !errors.As(err, &malformed) || !s.group.spoilt {
		t.Errorf("%v, polled %v", err, s.group.spoilt)
	}
}

// FuzzPublish holds that whatever a server publishes becomes well-formed readings of tags that there are, at a bounded cost.
func FuzzPublish(f *testing.F) {
	const head = 4 + 24 // the type, and the header of the response
	f.Add(publishResponse(f, 1, changes(int32(5), "x", 2.5, []float64{1, 2}))[head:])
	f.Add(publishResponse(f, 1)[head:])
	f.Add(publishResponse(f, 1, &ua.StatusChangeNotification{Status: ua.StatusBadTimeout, DiagnosticInfo: &ua.DiagnosticInfo{}})[head:])
	files, _ := filepath.Glob("testcases/*.txt")
	for _, file := range files {
		raw, err := hex.DecodeString(strings.ReplaceAll(parseCase(f, file)["bytes"], " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(published(raw))
	}
	f.Add(published([]byte{2, 0, 0, 0x34, 0x80})) // BadNodeIdUnknown
	events := publishResponse(f, 1, &ua.EventNotificationList{Events: []*ua.EventFieldList{{EventFields: []*ua.Variant{ua.MustVariant(ua.NewNumericNodeID(0, id.GeneralModelChangeEventType))}}}})[head:]
	f.Add(append([]byte{9}, events[1:]...))
	before := publishResponse(f, 1)[:head:head]
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, _ := offline(4)
		x.models, x.modelsMoved = &modelWatch{9}, func() {}
		body := append(before, raw...)
		used := allocated()
		err := x.answer(body, nil)
		if got := allocated() - used; got > mayAllocate(len(raw)) {
			t.Fatalf("%d bytes cost %d", len(raw), got)
		}
		var malformed malformedError
		if errors.As(err, &malformed) && !x.subs[7].members[0].group.spoilt {
			t.Fatal("a malformed message, and the group is not polled")
		}
		for len(x.pushes) > 0 {
			p := <-x.pushes
			for _, r := range p.Readings {
				if r.Tag >= 4 {
					t.Fatalf("tag %d", r.Tag)
				}
				r.Tag = 3
				wellFormed(t, r, "")
			}
		}
	})
}

// BenchmarkPublish1000 is the like of BenchmarkRead1000 without a server.
func BenchmarkPublish1000(b *testing.B) {
	f, _ := offline(1000)
	values := make([]any, 1000)
	for i := range values {
		values[i] = float64(i)
	}
	body := publishResponse(b, 0, changes(values...))
	b.ReportAllocs()
	for b.Loop() {
		if err := f.answer(body, nil); err != nil {
			b.Fatal(err)
		}
		<-f.pushes
		f.acks = f.acks[:0]
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/value")
}

// BenchmarkReadings1000 is what a poll costs in the same place.
func BenchmarkReadings1000(b *testing.B) {
	d := driver{converter: converter{texts: statusTexts{}}}
	raw, err := changes(2.5).MonitoredItems[0].Value.Encode()
	if err != nil {
		b.Fatal(err)
	}
	readings := make([]telemetry.Reading, 1000)
	for b.Loop() {
		for i := range readings {
			r := newReader(raw)
			v := r.DataValue(0)
			readings[i] = d.reading(i, &v, wanted{})
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/value")
}
