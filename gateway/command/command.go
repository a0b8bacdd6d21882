// Package command owns the way of a write to equipment, and of a call of a method of it: is the tag known, does the config allow it, is the value in range,
// is it not too soon; then through the poller to the driver, and an answer to whoever asked. It promises that nothing is
// written that no rule names, that each command is answered, logged and counted, and that one slow device holds up no
// other. The API calls Write and Call; formats whose receivers send commands will.
package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Rule allows writes to one tag, or calls of one method. Without a rule there are none.
type Rule struct {
	Device, Tag string
	Min, Max    float64 // of the value as people write it, scaled; both are needed for numbers
	Ranged      bool    // Min and Max are given
	Method      string  // in place of Tag, Min and Max: what people call it by
	Arguments   []Range // of a method, in the order in which it takes them
	Count       int     // commands that may come in a row, and again within each Per
	Per         time.Duration
}

// Target is where the writes of one tag, or the calls of one method, go.
type Target struct {
	Method drivers.Method // of a rule with Method; else the tag is in Group, Index, Tag, Type and Asks
	Rule   Rule
	Group  drivers.Ref
	Index  int // of the tag in its group
	Tag    telemetry.Tag
	Type   telemetry.DataType // before scaling; AnyType where only the device knows
	Asks   bool               // the driver asks the device for the type: it is a drivers.WriteTyper
	// Do runs a job with the driver between two polls; it is (*poller.Poller).Do.
	Do func(ctx context.Context, job func(drivers.Driver) error) error
}

// Request is a wish to write, or to call.
type Request struct {
	Device    string
	Tag       string   // of a write
	Value     string   // of a write, as a person writes it
	Method    string   // of a call
	Arguments []string // of a call, as a person writes them
	From      string   // who asks, for the log
}

// The refusals that a caller may ask for.
var (
	ErrNotAllowed = errors.New("not allowed")
	ErrTooSoon    = errors.New("too soon")
	ErrValue      = errors.New("value cannot be written")
	ErrNoWriter   = errors.New("this driver does not write")
	ErrNoCaller   = errors.New("the devices of this driver have no methods")
)

const (
	patience = 10 * time.Second // for a command, its wait behind others and behind polls included
	queued   = 16               // commands at once for one device; more are refused
	logged   = 64               // bytes of a foreign text that go to the log
)

// Stats count the commands to one device that the rules name. One without a device counts those to others.
type Stats struct {
	Device  string
	Done    uint64 // the device confirmed
	Refused uint64 // by us: nothing was sent
	Failed  uint64 // refused by the device, not reached, or not known
}

// Router decides, writes and calls. Its methods may be called from any goroutine.
type Router struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	targets map[key]*target
	queues  map[string]*queue // by device
	stats   map[string]*Stats // by device, as the rules name them; "" = all others
}

type key struct{ device, tag, method string }

type target struct {
	Target
	queue *queue
	*account
}

// account is what outlives a reload. The router's lock guards it.
type account struct {
	left float64 // commands that the rate allows now
	last time.Time
}

// queue lets one command at a time through to a device.
type queue struct {
	turn chan struct{}
	wait chan struct{} // places, the one whose turn it is included
}

// New returns a router that allows nothing yet.
func New(log *slog.Logger) *Router {
	return &Router{log: log, now: time.Now, targets: map[key]*target{}, queues: map[string]*queue{}, stats: map[string]*Stats{"": {}}}
}

// Set replaces what may be written and called. A tag or method that stays keeps its rate, a device its counts; a command that waits is judged again by
// the new rules when its turn comes.
func (r *Router) Set(list []Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	targets, queues, stats := make(map[key]*target, len(list)), map[string]*queue{}, map[string]*Stats{"": r.stats[""]}
	for i := range list {
		rule := &list[i].Rule
		k := key{rule.Device, rule.Tag, rule.Method}
		t := &target{Target: list[i], account: &account{left: float64(rule.Count)}}
		if was := r.targets[k]; was != nil {
			t.account = was.account
			t.left = min(t.left, float64(rule.Count))
		}
		if t.queue = queues[k.device]; t.queue == nil {
			t.queue = r.queueOf(k.device)
			queues[k.device], stats[k.device] = t.queue, cmp.Or(r.stats[k.device], &Stats{Device: k.device})
		}
		targets[k] = t
	}
	r.targets, r.queues, r.stats = targets, queues, stats
}

// queueOf returns the queue that commands of the device may wait in already, or a new one.
func (r *Router) queueOf(device string) *queue {
	if q := r.queues[device]; q != nil {
		return q
	}
	return &queue{turn: make(chan struct{}, 1), wait: make(chan struct{}, queued)}
}

// Stats returns the counts of each device that the rules name, by its name, and before them of all others.
func (r *Router) Stats() []Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Stats, 0, len(r.stats))
	for _, s := range r.stats {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Stats) int { return cmp.Compare(a.Device, b.Device) })
	return list
}

// Write decides over a request and, if it is allowed, writes and waits for the device's confirmation, 10 s at most. The error
// says why nothing was written, or that it is not known whether it was. Each call leaves one line in the log.
func (r *Router) Write(ctx context.Context, q Request) error {
	q.Method, q.Arguments = "", nil
	return r.do(ctx, &q, func(ctx context.Context, t *target) error { return t.write(ctx, q.Value) })
}

// do is what a write and a call have in common; act has the device do it.
func (r *Router) do(ctx context.Context, q *Request, act func(context.Context, *target) error) error {
	start := r.now()
	t, err := r.admit(q)
	if err != nil {
		r.count(q.Device, func(s *Stats) { s.Refused++ })
		return r.no("command refused", q, err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	leave, err := t.queue.enter(ctx)
	if err != nil {
		r.count(q.Device, func(s *Stats) { s.Refused++ })
		return r.no("command refused", q, err)
	}
	defer leave()
	now, err := r.find(q) // the rules may have changed while it waited
	if err != nil {
		r.count(q.Device, func(s *Stats) { s.Refused++ })
		return r.no("command refused", q, err)
	}
	switch err := act(ctx, now); {
	case errors.Is(err, ErrValue), errors.Is(err, ErrNotAllowed): // by the type that the device says
		r.count(q.Device, func(s *Stats) { s.Refused++ })
		return r.no("command refused", q, err)
	case err != nil:
		r.count(q.Device, func(s *Stats) { s.Failed++ })
		return r.no("command failed", q, err)
	}
	r.count(q.Device, func(s *Stats) { s.Done++ })
	r.log.Info("command done", append(q.attrs(), "took", r.now().Sub(start).Round(time.Millisecond))...)
	return nil
}

// no logs that a command was not done and returns the answer.
func (r *Router) no(what string, q *Request, cause error) error {
	r.log.Warn(what, append(q.attrs(), "cause", cause)...)
	if q.Method != "" {
		return fmt.Errorf("call %s/%s: %w", clip(q.Device), clip(q.Method), cause)
	}
	return fmt.Errorf("write %q to %s/%s: %w", clip(q.Value), clip(q.Device), clip(q.Tag), cause)
}

// attrs is what the log says of a request. Texts come from outside, so they are cut.
func (q *Request) attrs() []any {
	if q.Method != "" {
		return []any{"device", clip(q.Device), "method", clip(q.Method), "arguments", clip(fmt.Sprintf("%q", q.Arguments)), "from", clip(q.From)}
	}
	return []any{"device", clip(q.Device), "tag", clip(q.Tag), "value", clip(q.Value), "from", clip(q.From)}
}

func clip(s string) string {
	if len(s) <= logged {
		return s
	}
	return s[:logged] + "…"
}

// count counts a command to a device, which may be one that nobody knows.
func (r *Router) count(device string, f func(*Stats)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(cmp.Or(r.stats[device], r.stats[""]))
}

// admit finds the target, checks the value, and takes one command out of what the rate allows.
func (r *Router) admit(q *Request) (*target, error) {
	t, err := r.find(q)
	if err != nil {
		return t, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return t, t.spend(&t.Rule, r.now())
}

// find returns the target of a request, whose value fits it as far as that is known without the device.
func (r *Router) find(q *Request) (*target, error) {
	r.mu.Lock()
	t := r.targets[key{q.Device, q.Tag, q.Method}]
	r.mu.Unlock()
	switch {
	case t == nil && q.Method != "":
		return nil, fmt.Errorf("%w; list the method under writes: in the config and reload it", ErrNotAllowed)
	case t == nil:
		return nil, fmt.Errorf("%w; list the tag under writes: in the config and reload it", ErrNotAllowed)
	case q.Method != "":
		return t, bounded(q.Arguments)
	case t.Asks:
		return t, nil
	}
	_, err := t.raw(q.Value, t.Type, false)
	return t, err
}

// spend takes one command out of what the rate allows: a bucket that fills with time.
func (a *account) spend(rule *Rule, now time.Time) error {
	if rule.Count <= 0 || rule.Per <= 0 {
		return fmt.Errorf("%w: the rule has no rate", ErrNotAllowed)
	}
	if !a.last.IsZero() {
		a.left = min(a.left+now.Sub(a.last).Seconds()*float64(rule.Count)/rule.Per.Seconds(), float64(rule.Count))
	}
	a.last = now
	if a.left < 1 {
		return fmt.Errorf("%w: the config allows %d in %v; try again later", ErrTooSoon, rule.Count, rule.Per)
	}
	a.left--
	return nil
}

// enter waits for the turn of a command; leave gives it to the next.
func (q *queue) enter(ctx context.Context) (leave func(), err error) {
	select {
	case q.wait <- struct{}{}:
	default:
		return nil, fmt.Errorf("%w: %d commands wait for this device already; try again later", ErrTooSoon, queued)
	}
	select {
	case q.turn <- struct{}{}:
		return func() { <-q.turn; <-q.wait }, nil
	case <-ctx.Done():
		<-q.wait
		return nil, fmt.Errorf("the commands before it took too long: %w; nothing was sent", inWords(ctx.Err()))
	}
}

// write has the poller write between two polls.
func (t *target) write(ctx context.Context, text string) error {
	begun := false // Do returns only when the job is over, or will not begin
	err := t.Do(ctx, func(d drivers.Driver) error {
		w, ok := d.(drivers.Writer)
		if !ok {
			return ErrNoWriter
		}
		value, err := t.value(ctx, d, text)
		if err != nil {
			return err
		}
		begun = true
		return errors.Join(w.Write(ctx, []drivers.Write{{Group: t.Group, Tag: t.Index, Value: value}})...)
	})
	return outcome(err, begun, "nothing was written", "it is not known whether it was written: read the tag")
}

// outcome says of the error of a command whether it was done: not, where it has not begun; perhaps, where its answer is missing; else the
// device has said it.
func outcome(err error, begun bool, not, perhaps string) error {
	switch {
	case err == nil:
		return nil
	case !begun:
		return fmt.Errorf("%w; %s", inWords(err), not)
	case errors.Is(err, drivers.ErrLink), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("%w; %s", inWords(err), perhaps)
	}
	return err
}

// value returns a text as the value that the tag takes.
func (t *target) value(ctx context.Context, d drivers.Driver, text string) (telemetry.Value, error) {
	asker, ok := d.(drivers.WriteTyper)
	if !t.Asks || !ok {
		return t.raw(text, t.Type, false)
	}
	typ, array, err := asker.WriteType(ctx, t.Group, t.Index)
	if err != nil {
		return telemetry.Value{}, err
	}
	return t.raw(text, typ, array)
}

// ended is the end of a context in the words of who waited for the command.
type ended struct {
	error
	words string
}

func (e *ended) Error() string { return e.words }

func (e *ended) Unwrap() error { return e.error }

func inWords(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &ended{err, fmt.Sprintf("no answer within %v", patience)}
	case errors.Is(err, context.Canceled):
		return &ended{err, "whoever asked did not wait, or the gateway stops"}
	}
	return err
}
