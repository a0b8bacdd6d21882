package modbus

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// lane is a further connection to the line, for a device that answers in parallel. It carries only requests that were answered
// before as they are, and learns and mends nothing: what it does not bring, the line itself asks for once all lanes are done.
type lane struct {
	link  link
	pdu   [maxPDU]byte
	query request
	got   []*block  // that were answered, of this poll
	rest  time.Time // when it may be used again
	panic any       // of its goroutine, for the driver's
}

// laneRest is how long a lane that failed is not used: a device may have fewer connections than the config says.
const laneRest = 30 * time.Second

// maxConnections is how many connections a line may have.
const maxConnections = 8

// lanes are all of a line. They work only during a poll, and only as long as all goes well.
type lanes struct {
	all    []lane
	blocks []*block     // what may be asked over any connection
	next   atomic.Int32 // which is next
	work   sync.WaitGroup

	mu     sync.Mutex
	failed string // why one failed last, until Warning says so
	warned time.Time
}

// spread lets the lanes ask for what was answered before, each the next one as soon as it is free. The line itself does so, too.
func (d *driver) spread(ctx context.Context) {
	p, ls := &d.poll, &d.lanes
	ls.blocks = ls.blocks[:0]
	ls.next.Store(0)
	if len(ls.all) == 0 || p.unit.down { // which is asked once
		return
	}
	for _, b := range p.queue {
		b.asked = false
		if b.proved && b.reason == "" && b.half.words == "" && !b.probe && !b.trial && b.count <= b.span.limit() {
			ls.blocks = append(ls.blocks, b)
		}
	}
	for i := range ls.all[:min(len(ls.all), max(len(ls.blocks)-1, 0))] {
		l := &ls.all[i]
		l.follow(&d.link)
		if time.Now().After(l.rest) {
			ls.work.Go(func() { l.run(ctx, d) })
		}
	}
}

// claim returns the next block that nobody has asked for, nil for none.
func (ls *lanes) claim() *block {
	if i := int(ls.next.Add(1)) - 1; i < len(ls.blocks) {
		return ls.blocks[i]
	}
	return nil
}

// gather waits for the lanes and takes what they brought. It must be called before the poll decides anything.
func (d *driver) gather() {
	ls := &d.lanes
	if len(ls.blocks) == 0 {
		return
	}
	ls.next.Store(int32(len(ls.blocks)))
	ls.work.Wait()
	ls.blocks = ls.blocks[:0]
	for i := range ls.all {
		l := &ls.all[i]
		for _, b := range l.got {
			b.asked = true
			d.poll.took(b)
			d.poll.last = nil // each keeps its own time: nobody knows which was the last
		}
		l.got = l.got[:0]
		if v := l.panic; v != nil {
			l.panic = nil
			panic(v) // where somebody sees to it
		}
	}
}

// follow takes over what the line knows of where it leads and how hastily it may be asked.
func (l *lane) follow(main *link) {
	if l.link.endpoint != main.endpoint {
		_ = l.link.close()
		l.link.endpoint, l.link.tls = main.endpoint, main.tls
	}
	l.link.pace = pace{between: main.pace.between, connect: main.pace.connect, betweenGiven: true, connectGiven: true}
	l.link.dialer = main.dialer
	l.link.trace.Store(main.trace.Load())
}

// run asks until there is nothing left to ask for, or something goes wrong.
func (l *lane) run(ctx context.Context, d *driver) {
	defer func() { l.panic = recover() }()
	p := &d.poll
	err := error(nil)
	if l.link.wire == nil {
		err = l.link.reopen(ctx, p.unit.timeout)
	}
	for err == nil {
		b := d.lanes.claim()
		if b == nil {
			return
		}
		err = l.fetch(ctx, d, b)
	}
	if ctx.Err() == nil {
		d.lanes.fail(err, p.unit.timeout)
		l.rest = time.Now().Add(laneRest)
	}
	_ = l.link.close()
}

// fetch asks for one block. What the device refuses is left to the line.
func (l *lane) fetch(ctx context.Context, d *driver, b *block) error {
	p := &d.poll
	q := p.unit.read(b, &l.query, l.pdu[:0])
	pdu, err := l.link.ask(ctx, q, p.unit.timeout)
	if e := asLoss(err); e != nil && e.kind == lossClosed && e.idle {
		if err = l.link.reopen(ctx, p.unit.timeout); err == nil {
			pdu, err = l.link.ask(ctx, q, p.unit.timeout)
		}
	}
	if _, refused := err.(exception); refused {
		return nil
	}
	if err == nil {
		p.decode(b, pdu[2:], middle(d.now(), l.link.took).UnixMicro(), p.out)
		l.got = append(l.got, b)
	}
	return err
}

func (ls *lanes) fail(err error, timeout time.Duration) {
	words := plain(err)
	if l := asLoss(err); l != nil {
		words = l.words(timeout)
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.failed = fmt.Sprintf("one of %d connections failed: %s; it is tried again after %v, and the others carry its requests; if this goes on, lower connections", len(ls.all)+1, words, laneRest)
}

// warning says that a lane failed, once a minute at most.
func (ls *lanes) warning(now time.Time) string {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.failed == "" || now.Sub(ls.warned) < warnEvery {
		return ""
	}
	text := ls.failed
	ls.failed, ls.warned = "", now
	return text
}

// close closes all lanes.
func (ls *lanes) close() {
	for i := range ls.all {
		_ = ls.all[i].link.close()
	}
}

// setConnections reads connections.
func (l *link) setConnections(given map[string]string, r *reporter) {
	l.connections = r.number(given, "connections", 1, 1, maxConnections)
	if l.connections == 1 {
		return
	}
	if l.framing != mbap || l.network != netTCP && l.network != netTLS {
		r.add("connections", fmt.Sprintf("connections %d: only devices on tcp and tcp+tls answer in parallel", l.connections), "leave it out")
	}
	if l.closeAfter {
		r.add("connections", fmt.Sprintf("connections %d: close_after_poll is for devices with few of them", l.connections), "leave out one of the two")
	}
}
