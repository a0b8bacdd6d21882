// Package command owns the way of a write to equipment: is the tag known, does the config allow it, is the value in range,
// is it not too soon; then through the poller to the driver, and an answer to whoever asked. It promises that nothing is
// written that no rule names, that each command is answered, logged and counted, and that one slow device holds up no
// other. The API calls Write; formats whose receivers send commands will.
package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Rule allows writes to one tag. Without a rule there are none.
type Rule struct {
	Device, Tag string
	Min, Max    float64 // of the value as people write it, scaled; both are needed for numbers
	Ranged      bool    // Min and Max are given
	Count       int     // writes that may come in a row, and again within each Per
	Per         time.Duration
}

// Target is where the writes of one tag go.
type Target struct {
	Rule  Rule
	Group drivers.Ref
	Index int // of the tag in its group
	Tag   telemetry.Tag
	Type  telemetry.DataType // before scaling; AnyType where only the device knows
	// Do runs a job with the driver between two polls; it is (*poller.Poller).Do.
	Do func(ctx context.Context, job func(drivers.Driver) error) error
}

// Request is a wish to write.
type Request struct {
	Device, Tag string
	Value       string // as a person writes it
	From        string // who asks, for the log
}

// The refusals that a caller may ask for.
var (
	ErrNotAllowed = errors.New("not allowed")
	ErrTooSoon    = errors.New("too soon")
	ErrValue      = errors.New("value cannot be written")
	ErrNoWriter   = errors.New("this driver does not write")
)

// patience bounds a command, queueing behind polls included.
const patience = 10 * time.Second

// queued bounds the commands that wait for one device.
const queued = 16

// Stats count the commands of one tag.
type Stats struct {
	Device, Tag           string
	Done, Refused, Failed uint64
}

// Router decides and writes. Its methods may be called from any goroutine.
type Router struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	targets map[key]*target
}

type key struct{ device, tag string }

type target struct {
	Target
	turn  chan struct{} // one command at a time
	wait  chan struct{} // places in the queue
	left  float64       // writes that the rate allows now
	last  time.Time
	stats Stats
}

// New returns a router that allows nothing yet.
func New(log *slog.Logger) *Router {
	return &Router{log: log, now: time.Now, targets: map[key]*target{}}
}

// Set replaces what may be written. A tag that stays keeps its count and its rate.
func (r *Router) Set(list []Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[key]*target, len(list))
	for i := range list {
		k := key{list[i].Rule.Device, list[i].Rule.Tag}
		t := &target{turn: make(chan struct{}, 1), wait: make(chan struct{}, queued), left: float64(list[i].Rule.Count),
			stats: Stats{Device: k.device, Tag: k.tag}}
		if was := r.targets[k]; was != nil {
			t.turn, t.wait, t.last, t.stats = was.turn, was.wait, was.last, was.stats
			t.left = min(was.left, t.left)
		}
		t.Target = list[i]
		next[k] = t
	}
	r.targets = next
}

// Stats returns the counts of every tag that may be written.
func (r *Router) Stats() []Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Stats, 0, len(r.targets))
	for _, t := range r.targets {
		list = append(list, t.stats)
	}
	return list
}

// Write decides over a request and, if it is allowed, writes and waits for the device's confirmation. The error says why
// nothing was written, or that it is not known whether it was. Each call leaves one line in the log.
func (r *Router) Write(ctx context.Context, q Request) error {
	start := r.now()
	t, value, err := r.admit(&q)
	if err != nil {
		r.count(t, func(s *Stats) { s.Refused++ })
		r.log.Warn("command refused", "device", q.Device, "tag", q.Tag, "value", q.Value, "from", q.From, "cause", err)
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := t.write(ctx, value); err != nil {
		err = fmt.Errorf("write %q to %s/%s: %w", q.Value, q.Device, q.Tag, err)
		r.count(t, func(s *Stats) { s.Failed++ })
		r.log.Warn("command failed", "device", q.Device, "tag", q.Tag, "value", q.Value, "from", q.From, "cause", err)
		return err
	}
	r.count(t, func(s *Stats) { s.Done++ })
	r.log.Info("command done", "device", q.Device, "tag", q.Tag, "value", q.Value, "from", q.From, "took", r.now().Sub(start).Round(time.Millisecond))
	return nil
}

func (r *Router) count(t *target, f func(*Stats)) {
	if t == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&t.stats)
}

// admit finds the target, checks the value and the rate, and returns the value as the device wants it.
func (r *Router) admit(q *Request) (*target, telemetry.Value, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.targets[key{q.Device, q.Tag}]
	if t == nil {
		return nil, telemetry.Value{}, fmt.Errorf("write to %s/%s: %w; list the tag under writes: in the config", q.Device, q.Tag, ErrNotAllowed)
	}
	value, err := t.raw(q.Value)
	if err == nil {
		err = t.spend(r.now())
	}
	if err != nil {
		err = fmt.Errorf("write %q to %s/%s: %w", q.Value, q.Device, q.Tag, err)
	}
	return t, value, err
}

// spend takes one write out of what the rate allows.
func (t *target) spend(now time.Time) error {
	rule := &t.Rule
	if rule.Count <= 0 || rule.Per <= 0 {
		return nil
	}
	if !t.last.IsZero() {
		t.left = min(t.left+now.Sub(t.last).Seconds()*float64(rule.Count)/rule.Per.Seconds(), float64(rule.Count))
	}
	t.last = now
	if t.left < 1 {
		return fmt.Errorf("%w: the config allows %d in %v", ErrTooSoon, rule.Count, rule.Per)
	}
	t.left--
	return nil
}

// write waits for its turn and writes.
func (t *target) write(ctx context.Context, value telemetry.Value) error {
	select {
	case t.wait <- struct{}{}:
		defer func() { <-t.wait }()
	default:
		return fmt.Errorf("%w: %d commands wait for this tag already", ErrTooSoon, queued)
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return fmt.Errorf("the commands before it took too long: %w", ctx.Err())
	}
	return t.Do(ctx, func(d drivers.Driver) error {
		w, ok := d.(drivers.Writer)
		if !ok {
			return ErrNoWriter
		}
		for _, err := range w.Write(ctx, []drivers.Write{{Group: t.Group, Tag: t.Index, Value: value}}) {
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// raw reads a value as a person writes it, checks its range, takes the scale off, and fits it to the tag's type.
func (t *target) raw(text string) (telemetry.Value, error) {
	switch t.Type.Kind() {
	case telemetry.KindBool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return telemetry.Value{}, fmt.Errorf("%w: use true or false", ErrValue)
		}
		return telemetry.Bool(b), nil
	case telemetry.KindString:
		return telemetry.String(text), nil
	case telemetry.KindTime, telemetry.KindArray:
		return telemetry.Value{}, fmt.Errorf("%w: a %s cannot", ErrValue, t.Type)
	}
	x, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil || math.IsNaN(x) || math.IsInf(x, 0):
		return telemetry.Value{}, fmt.Errorf("%w: use a number", ErrValue)
	case !t.Rule.Ranged:
		return telemetry.Value{}, fmt.Errorf("%w: the rule of a number needs min and max", ErrNotAllowed)
	case x < t.Rule.Min || x > t.Rule.Max:
		return telemetry.Value{}, fmt.Errorf("%w: use %v to %v", ErrValue, t.Rule.Min, t.Rule.Max)
	}
	if t.Tag.Scaled() {
		scale := t.Tag.Scale
		if scale == 0 {
			scale = 1
		}
		x = (x - t.Tag.Offset) / scale
	}
	return fit(t.Type, x)
}

// fit makes a number one of a type, rounded to the nearest where the type has whole ones only.
func fit(typ telemetry.DataType, x float64) (telemetry.Value, error) {
	switch typ.Kind() {
	case telemetry.KindFloat32:
		if math.Abs(x) > math.MaxFloat32 {
			return telemetry.Value{}, fmt.Errorf("%w: too large for a %s", ErrValue, typ)
		}
		return telemetry.Float32(float32(x)), nil
	case telemetry.KindInt, telemetry.KindUint:
		least, most := bounds(typ)
		if x = math.Round(x); x < least || x > most {
			return telemetry.Value{}, fmt.Errorf("%w: without its scale it is %v, and a %s holds %v to %v", ErrValue, x, typ, least, most)
		}
		if typ.Kind() == telemetry.KindUint {
			return telemetry.Uint(uint64(x)), nil
		}
		return telemetry.Int(int64(x)), nil
	}
	return telemetry.Float64(x), nil
}

// bounds returns the least and the most that a whole type holds and a float64 can say exactly.
func bounds(typ telemetry.DataType) (least, most float64) {
	const exact = 1 << 53
	switch typ {
	case telemetry.Int8Type:
		return math.MinInt8, math.MaxInt8
	case telemetry.Int16Type:
		return math.MinInt16, math.MaxInt16
	case telemetry.Int32Type:
		return math.MinInt32, math.MaxInt32
	case telemetry.Uint8Type:
		return 0, math.MaxUint8
	case telemetry.Uint16Type:
		return 0, math.MaxUint16
	case telemetry.Uint32Type:
		return 0, math.MaxUint32
	case telemetry.Uint64Type:
		return 0, exact
	}
	return -exact, exact
}
