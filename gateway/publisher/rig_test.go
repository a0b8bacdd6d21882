package publisher

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/drivers/telemetry"
	"millrace/gateway/format/jsonmsg"
	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/record"
)

// account is the test's own account of what a broker got. It is fed by brokersim before a PUBACK is sent.
type account struct {
	mu         sync.Mutex
	payloads   map[uint64]string // by sequence number
	order      []uint64          // first arrivals
	duplicates int
	different  int // duplicates that were not byte-identical
	inversions []string
	last       map[string]uint64 // by device, historical mark, and whether it is a gap record
	historical int
	gaps       []envelope
	readings   int // of first arrivals
	bad        int // payloads that are no message
}

type envelope struct {
	Device     string
	Seq        uint64
	Historical bool
	Values     map[string]any
	Bad        map[string]string
	Gap        *struct {
		Count uint64
		Cause string
	}
}

func newAccount() *account {
	return &account{payloads: map[uint64]string{}, last: map[string]uint64{}}
}

func (a *account) take(m brokersim.Message) {
	var e envelope
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := json.Unmarshal(m.Payload, &e); err != nil || m.QoS != 1 || m.Retain {
		a.bad++
		return
	}
	if was, again := a.payloads[e.Seq]; again {
		a.duplicates++
		if was != string(m.Payload) {
			a.different++
		}
		return
	}
	a.payloads[e.Seq] = string(m.Payload)
	a.order = append(a.order, e.Seq)
	a.readings += len(e.Values) + len(e.Bad)
	if e.Historical {
		a.historical++
	}
	if e.Gap != nil {
		a.gaps = append(a.gaps, e)
	}
	key := fmt.Sprint(e.Device, e.Historical, e.Gap != nil)
	if last, ok := a.last[key]; ok && e.Seq < last {
		a.inversions = append(a.inversions, fmt.Sprintf("%s: %d after %d, historical %v", e.Device, e.Seq, last, e.Historical))
	}
	a.last[key] = e.Seq
}

func (a *account) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.payloads)
}

func (a *account) sum() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.readings
}

// check reports everything that must hold in any test.
func (a *account) check(t testing.TB) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.different != 0 || len(a.inversions) != 0 || a.bad != 0 {
		t.Errorf("%d duplicates not byte-identical, %d bad payloads, %d inversions %v", a.different, a.bad, len(a.inversions), a.inversions[:min(len(a.inversions), 5)])
	}
}

// rig is a buffer, a broker and a publisher between them.
type rig struct {
	t       testing.TB
	buf     *buffer.Buffer
	broker  *brokersim.Broker
	got     *account
	p       *Publisher
	streams []*buffer.Stream
	sent    int // readings appended
	chance  *rand.Rand
	stop    func()
}

type rigOptions struct {
	publisher Options
	broker    brokersim.Options
	buffer    buffer.Options
	tags      int
	dir       string
	got       *account
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	r := &rig{t: t, got: o.got}
	if r.got == nil {
		r.got = newAccount()
	}
	o.broker.OnPublish = r.got.take
	r.broker = brokersim.New(o.broker)
	if err := r.broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.broker.Kill)
	scheme := "mqtt://"
	if o.broker.TLS != nil {
		scheme = "mqtts://"
	}
	if o.publisher.URL == "" {
		o.publisher.URL = scheme + r.broker.Addr()
	}
	r.open(o)
	return r
}

// open makes the buffer and the publisher of the rig.
func (r *rig) open(o rigOptions) {
	r.t.Helper()
	if o.dir == "" {
		o.dir = r.t.TempDir()
	}
	o.buffer.Destinations = []string{"cloud"}
	if o.buffer.CommitInterval == 0 {
		o.buffer.CommitInterval = 50 * time.Millisecond
	}
	var err error
	if r.buf, err = buffer.Open(o.dir, o.buffer); err != nil {
		r.t.Fatal(err)
	}
	schema := &record.Schema{Group: "fast"}
	for i := range max(o.tags, 3) {
		schema.Tags = append(schema.Tags, record.Tag{Name: fmt.Sprintf("tag-%03d", i)})
	}
	for i := range 3 {
		schema.Device = fmt.Sprintf("press-%d", i+1)
		s, err := r.buf.Stream(schema.Device, record.AppendSchema(nil, schema))
		if err != nil {
			r.t.Fatal(err)
		}
		r.streams = append(r.streams, s)
	}
	format, err := jsonmsg.New(jsonmsg.Options{Gateway: "shop", Epoch: r.buf.Epoch()})
	if err != nil {
		r.t.Fatal(err)
	}
	o.publisher.Destination, o.publisher.ClientID, o.publisher.Format = "cloud", "shop", format
	if testing.Verbose() && os.Getenv("PUBLISHER_LOG") != "" {
		o.publisher.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if r.p, err = New(r.buf, o.publisher); err != nil {
		r.t.Fatal(err)
	}
}

// run starts the buffer and the publisher. stop ends them.
func (r *rig) run() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.buf.Run(ctx) })
	wg.Go(func() { r.p.Run(ctx) })
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			wg.Wait()
			if err := r.buf.Close(); err != nil {
				r.t.Errorf("close the buffer: %v", err)
			}
		})
	}
	r.t.Cleanup(r.stop)
}

// next appends a record: of the first device, or with chance of any, and now and then one that is poison to a broker
// that takes 1,000 bytes.
func (r *rig) next() {
	switch {
	case r.chance == nil:
		r.append(0, 3)
	case r.chance.IntN(400) == 0:
		r.append(1+r.chance.IntN(2), 100)
	default:
		r.append(r.chance.IntN(3), 3)
	}
}

// append puts a record of n readings into the buffer.
func (r *rig) append(device, n int) uint64 {
	r.t.Helper()
	rec := record.Record{Time: 1766480000000000 + int64(r.sent)}
	for i := range n {
		rec.Readings = append(rec.Readings, telemetry.Reading{Tag: uint32(i), Time: rec.Time, Value: telemetry.Uint(uint64(r.sent + i))})
	}
	return r.appendRaw(device, record.Append(nil, &rec), n)
}

func (r *rig) appendRaw(device int, payload []byte, n int) uint64 {
	r.t.Helper()
	r.streams[device].Count(n, 0)
	seq, err := r.buf.Append(r.streams[device], payload, n, 1766480000000000)
	if err != nil {
		r.t.Fatal(err)
	}
	r.sent += n
	return seq
}

// ledger returns the sums over all accounts.
func (r *rig) ledger() (delivered, waiting, inFlight, dropped int) {
	for _, a := range r.buf.Ledger() {
		d := a.Destinations[0]
		delivered += int(d.Delivered)
		waiting += int(d.Buffered)
		inFlight += int(d.InFlight)
		dropped += int(d.Lost())
	}
	return
}

func (r *rig) await(what string, done func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("timed out: %s\nstats %+v\nbroker %+v, received %d", what, r.p.Stats(), r.broker.Stats(), r.got.count())
		}
	}
}

// delivered waits until every record has been acknowledged and checks the account.
func (r *rig) delivered() {
	r.t.Helper()
	r.await("every record acknowledged", func() bool { return r.p.Stats().Unacked == 0 })
	if delivered, waiting, inFlight, dropped := r.ledger(); delivered+dropped != r.sent || waiting+inFlight != 0 {
		r.t.Errorf("ledger: delivered %d, dropped %d of %d, waiting %d, in flight %d", delivered, dropped, r.sent, waiting, inFlight)
	}
	r.got.check(r.t)
}

// quietBroker is one without an account.
func quietBroker(t testing.TB) *brokersim.Broker {
	b := brokersim.New(brokersim.Options{})
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	return b
}
