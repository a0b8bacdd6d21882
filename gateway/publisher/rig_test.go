package publisher

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/drivers/telemetry"
	"millrace/gateway/format"
	"millrace/gateway/link"
	"millrace/gateway/record"
)

// receiver is a scripted broker in memory. It handles messages in the order of sending, latency after they were sent.
type receiver struct {
	mu        sync.Mutex
	latency   time.Duration
	refuse    error                      // of each dial
	attempt   func(n int) error          // of the nth dial; nil = refuse
	closes    func(m *got, nth int) bool // close the session on this message, the nth of its session; nil = never
	silent    func(m *got) bool          // neither take nor answer this message
	mute      bool                       // take messages, and never answer
	frozen    bool                       // handle nothing until it is over: see thaw
	answerNo  func(m *got) bool          // answer that it never takes this message
	swallowed time.Time                  // since when the session is silent; zero = it is not
	dials     int
	sessions  []*fakeLink
	delivered []got
}

// got is one message that a receiver took.
type got struct {
	topic      string
	seq        uint64
	size       int
	historical bool
	made       time.Time // the record's time
	at         time.Time
}

func (r *receiver) Dial(ctx context.Context, _ *link.Message) (link.Link, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dials++
	err := r.refuse
	if r.attempt != nil {
		err = r.attempt(r.dials)
	}
	if err != nil {
		return nil, err
	}
	l := &fakeLink{r: r, changed: make(chan struct{}, 1), inbox: make(chan link.Message, 4)}
	r.sessions, r.swallowed = append(r.sessions, l), time.Time{}
	return l, nil
}

// listen ends a silence. One that the session has borne for less than it takes to notice it costs the session: newer messages of a stream
// would be taken before older ones that never were, which no sender can know.
func (r *receiver) listen() {
	r.mu.Lock()
	r.silent = nil
	unnoticed := !r.swallowed.IsZero() && time.Since(r.swallowed) < 3*time.Second
	r.swallowed = time.Time{}
	r.mu.Unlock()
	if unnoticed {
		r.cut()
	}
}

func (r *receiver) cut() {
	r.mu.Lock()
	l := r.sessions[len(r.sessions)-1]
	r.mu.Unlock()
	l.fail(fmt.Errorf("%w (EOF)", link.ErrPeerClosed))
}

// set changes how the receiver behaves.
func (r *receiver) set(f func(*receiver)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

type fakeLink struct {
	r       *receiver
	changed chan struct{}
	inbox   chan link.Message
	order   sync.Mutex // of handling
	mu      sync.Mutex
	sent    uint64
	queue   []*got
	handled int
	due     int // messages that came while the receiver was frozen
	acks    []link.Ack
	err     error
}

func (l *fakeLink) Send(m link.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.sent++
	l.queue = append(l.queue, parse(m))
	time.AfterFunc(l.r.latency, l.handle)
	return nil
}

func parse(m link.Message) *got {
	p := m.Payload
	return &got{topic: m.Topic, seq: binary.BigEndian.Uint64(p), size: len(p), historical: p[8] == 1, made: time.UnixMicro(int64(binary.BigEndian.Uint64(p[9:])))}
}

// handle takes the next message in the order of sending: timers of one moment fire in any order.
func (l *fakeLink) handle() {
	r := l.r
	l.order.Lock()
	defer l.order.Unlock()
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	if r.isFrozen() {
		l.due++
		l.mu.Unlock()
		return
	}
	g, n := l.queue[0], uint64(l.handled)
	l.queue = l.queue[1:]
	l.handled++
	nth := l.handled
	l.mu.Unlock()
	r.mu.Lock()
	closes, silent, no := r.closes != nil && r.closes(g, nth), r.silent != nil && r.silent(g), r.answerNo != nil && r.answerNo(g)
	mute := r.mute
	if silent && r.swallowed.IsZero() {
		r.swallowed = time.Now()
	}
	if !closes && !silent && !no {
		g.at = time.Now()
		r.delivered = append(r.delivered, *g)
	}
	r.mu.Unlock()
	switch {
	case closes:
		l.fail(fmt.Errorf("%w (EOF)", link.ErrPeerClosed))
	case !silent && !mute:
		answer := link.Ack{N: n, At: time.Now()}
		if no {
			answer.Err = errors.New("not authorised")
		}
		l.mu.Lock()
		l.acks = append(l.acks, answer)
		l.mu.Unlock()
		l.signal()
	}
}

func (r *receiver) isFrozen() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.frozen
}

// thaw lets a frozen receiver handle what has come meanwhile.
func (r *receiver) thaw() {
	r.set(func(r *receiver) { r.frozen = false })
	r.mu.Lock()
	l := r.sessions[len(r.sessions)-1]
	r.mu.Unlock()
	l.mu.Lock()
	due := l.due
	l.due = 0
	l.mu.Unlock()
	for range due {
		l.handle()
	}
}

func (l *fakeLink) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	l.signal()
}

func (l *fakeLink) signal() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *fakeLink) Acked(dst []link.Ack) []link.Ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	dst = append(dst, l.acks...)
	l.acks = nil
	return dst
}

func (l *fakeLink) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *fakeLink) Flush()                     {}
func (l *fakeLink) Changed() <-chan struct{}   { return l.changed }
func (l *fakeLink) Subscribe(...string) error  { return nil }
func (l *fakeLink) Inbox() <-chan link.Message { return l.inbox }
func (l *fakeLink) Stats() link.Stats          { return link.Stats{Stray: 2, Discarded: 3} }
func (l *fakeLink) Close() error               { l.fail(link.ErrClosed); return nil }

// plainFormat writes sequence number, mark and time, and pads records of one reading to its value in bytes.
type plainFormat struct{ batch int }

func (f plainFormat) Open() format.Encoder { return &plainEncoder{batch: max(f.batch, 1)} }

type plainEncoder struct{ batch int }

func (e *plainEncoder) Hello(dst []link.Message) []link.Message { return dst }
func (e *plainEncoder) Topic(s *record.Schema) string           { return s.Device + "/" + s.Group }
func (e *plainEncoder) Batch() int                              { return e.batch }
func (e *plainEncoder) Take(link.Message) (format.Event, bool)  { return format.Event{}, false }
func (e *plainEncoder) Encode(dst []link.Message, recs []format.Record) ([]link.Message, error) {
	for i := range recs {
		r := &recs[i]
		b := binary.BigEndian.AppendUint64(nil, r.Seq)
		b = append(b, 0)
		if r.Historical {
			b[8] = 1
		}
		b = binary.BigEndian.AppendUint64(b, uint64(r.Time))
		if r.Record != nil {
			b = append(b, make([]byte, r.Record.Readings[0].Value.Bits)...)
		}
		dst = append(dst, link.Message{Topic: e.Topic(r.Schema), Payload: b, QoS: 1})
	}
	return dst, nil
}

// rig is a publisher between a buffer and a receiver.
type rig struct {
	t   *testing.T
	dir string
	buf *buffer.Buffer
	pub *Publisher
	rec *receiver
	log *lockedLog
	o   Options

	blind   bool // a record that stands still is no failure
	streams map[string]*buffer.Stream
	names   []string
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// lockedLog is a log that is read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newRig(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	return newRigOn(t, buffer.Options{MaxSize: 1 << 30, CommitInterval: time.Second}, change)
}

// newRigOn is newRig with options for the store.
func newRigOn(t *testing.T, o buffer.Options, change func(*Options)) *rig {
	t.Helper()
	o.Destinations = []string{"cloud"}
	dir := storeDir(t) + "/store"
	b, err := buffer.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, buf: b, rec: &receiver{latency: 20 * time.Millisecond}, log: &lockedLog{}, streams: map[string]*buffer.Stream{}}
	f := plainFormat{}
	r.o = Options{Destination: "cloud", Receiver: "fake", Dialer: r.rec, Format: emptyFormat{}, Open: func([]*record.Schema) format.Encoder { return f.Open() },
		Log: slog.New(slog.NewTextHandler(r.log, nil)), Window: 100, WindowBytes: 1 << 20, Order: LiveFirst,
		AckTimeout: 10 * time.Second, RetryMin: 200 * time.Millisecond, RetryMax: 8 * time.Second}
	if change != nil {
		change(&r.o)
	}
	if r.pub, err = New(b, r.o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.done.Go(func() { _ = b.Run(ctx) })
	t.Cleanup(r.stop)
	return r
}

// emptyFormat is the half of a format that sessions ask.
type emptyFormat struct{ format.Format }

func (emptyFormat) Will() *link.Message     { return nil }
func (emptyFormat) Subscriptions() []string { return nil }

func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	all := r.cancel
	r.cancel = func() { cancel(); all() }
	r.done.Go(func() { _ = r.pub.Run(ctx) })
	if !r.blind {
		r.done.Go(func() { r.watchOverdue(ctx) })
	}
	time.Sleep(time.Millisecond) // the session begins before the first record
}

// watchOverdue fails the test when a record stands still that nothing keeps from being sent, as the gateway's judgement has it.
func (r *rig) watchOverdue(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
		if s := r.pub.Stats(); s.Overdue != 0 && time.Since(s.OverdueSince) > 20*time.Second {
			r.t.Errorf("record %d stands still for %v: %+v", s.Overdue, time.Since(s.OverdueSince), s)
			return
		}
	}
}

func (r *rig) stop() {
	r.cancel()
	r.done.Wait()
	if err := r.buf.Close(); err != nil {
		r.t.Error(err)
	}
}

// open is the breakers of the streams of readings, without those of gap records.
func (r *rig) open() (n int) {
	for _, b := range r.pub.Stats().Breakers {
		if strings.HasSuffix(b.Topic, "/g") {
			n++
		}
	}
	return n
}

// append puts one record of a device into the buffer; its message has so many bytes more.
func (r *rig) append(device string, pad int) uint64 {
	r.t.Helper()
	seq, err := r.tryAppend(device, pad)
	if err != nil {
		r.t.Fatal(err)
	}
	return seq
}

func (r *rig) tryAppend(device string, pad int) (uint64, error) {
	r.t.Helper()
	s := r.streams[device]
	if s == nil {
		var err error
		schema := record.AppendSchema(nil, &record.Schema{Device: device, Group: "g", Tags: []record.Tag{{Name: "x"}}})
		if s, err = r.buf.Stream(device, schema); err != nil {
			r.t.Fatal(err)
		}
		r.streams[device] = s
		r.names = append(r.names, device)
	}
	now := time.Now().UnixMicro()
	rec := record.Record{Time: now, Readings: []telemetry.Reading{{Value: telemetry.Uint(uint64(pad)), Time: now}}}
	s.Count(1, 0)
	return r.buf.Append(s, record.Append(nil, &rec), 1, now)
}

// feed appends a record of each device, again and again, for so long.
func (r *rig) feed(length, interval time.Duration, devices ...string) {
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(interval) {
		for _, d := range devices {
			r.append(d, 0)
		}
	}
}

// settle waits until nothing waits any more.
func (r *rig) settle(most time.Duration) {
	r.t.Helper()
	for end := time.Now().Add(most); r.buf.Destination("cloud").Len() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%d records are still waiting after %v; %+v\n%s", r.buf.Destination("cloud").Len(), most, r.pub.Stats(), r.log)
		}
	}
}

func (r *rig) got() []got {
	r.rec.mu.Lock()
	defer r.rec.mu.Unlock()
	return slices.Clone(r.rec.delivered)
}

// checkOrder fails when, without duplicates, the records of a device are out of order within a lane. Oldest first has one.
func (r *rig) checkOrder() {
	r.t.Helper()
	type lane struct {
		topic      string
		historical bool
	}
	last, seen := map[lane]uint64{}, map[uint64]bool{}
	for _, g := range r.got() {
		if seen[g.seq] {
			continue
		}
		seen[g.seq] = true
		l := lane{g.topic, g.historical && r.o.Order == LiveFirst}
		if g.seq < last[l] {
			r.t.Errorf("%s, historical %v: record %d after %d", g.topic, g.historical, g.seq, last[l])
		}
		last[l] = g.seq
	}
}

// checkLedger fails when the buffer's account does not add up.
func (r *rig) checkLedger() {
	r.t.Helper()
	for _, a := range r.buf.Ledger() {
		for _, d := range a.Destinations {
			if sum := d.Before + d.Delivered + d.Buffered + d.InFlight + d.Lost(); sum != a.Accepted {
				r.t.Errorf("device %s: accepted %d, accounted for %d: %+v", a.Name, a.Accepted, sum, d)
			}
		}
	}
}

// waited returns for how long the worst of the devices got nothing, all times together: of each pause of half a second or longer, all of it.
func (r *rig) waited(devices ...string) (most time.Duration) {
	last, sum, seen := map[string]time.Time{}, map[string]time.Duration{}, map[uint64]bool{}
	for _, g := range r.got() {
		device, _, _ := strings.Cut(g.topic, "/")
		if seen[g.seq] || !slices.Contains(devices, device) {
			continue
		}
		seen[g.seq] = true
		if pause := g.at.Sub(last[device]); !last[device].IsZero() && pause >= time.Second/2 {
			sum[device] += pause
			most = max(most, sum[device])
		}
		last[device] = g.at
	}
	return most
}

// longest returns the longest time from a record's making to its first arrival, for the devices.
func (r *rig) longest(devices ...string) (most time.Duration, missing int) {
	first := map[uint64]time.Duration{}
	for _, g := range r.got() {
		device, _, _ := strings.Cut(g.topic, "/")
		if _, again := first[g.seq]; !again && slices.Contains(devices, device) {
			first[g.seq] = g.at.Sub(g.made)
			most = max(most, first[g.seq])
		}
	}
	return most, len(first)
}
