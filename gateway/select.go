package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
	"millrace/gateway/poller"
	"millrace/gateway/web"
)

// following is how the gateway follows the rules of the groups of one connection. Only the goroutine that does has what is no atomic.
type following struct {
	selector drivers.Selector
	source   []config.Device // without the tags that were selected
	rules    []ruledGroup
	option   string // by which a config names a rule

	refused     atomic.Pointer[refusal] // what was selected last cannot be put into force; nil = it is in force, or nothing was selected
	again, anew atomic.Bool             // somebody wants it; and only what is there now

	next   int // of rules
	found  []*drivers.Selection
	models uint64 // when it began, and when it ended last
	seen   uint64
	at     time.Time // not before

	drops int // tags that were dropped last because somebody wanted it; selections.mu guards it

	changes int  // of the tags, in this run: each makes the next one wait for twice as long
	tooMany bool // it was said that there were too many
}

// ruledGroup is a group with a rule.
type ruledGroup struct {
	ref   drivers.Ref
	key   groupKey
	tags  []telemetry.Tag           // that it has selected, and the connection was made with
	said  string                    // what was said last of it
	fault atomic.Pointer[ruleFault] // nil = it selects what it should, or was not followed yet
}

// ruleFault is what is the matter with a rule.
type ruleFault struct {
	web.RuleFault
	unfollowed bool // it could not be followed: what it would select is not known
}

// refusal is why the tags that the rules of a connection select cannot be put into force.
type refusal struct {
	group drivers.Ref
	all   bool // of the groups are concerned, not only that one
	fault web.RuleFault
}

// How often the device is looked through.
const (
	followEvery = time.Second      // what there is to do
	selectEvery = 30 * time.Second // at most, however often the device says that it has changed
	selectAgain = time.Minute      // where it was refused
	selectTime  = 10 * time.Second // for a portion to begin

	// Each change of the tags is a new stream of the store, which it has until the next start: what a server makes up must not fill the memory.
	maxDoublings = 7         // of selectEvery: an hour
	calm         = time.Hour // without a change, after which the wait is the first again
	maxSelected  = 500_000   // tags of all changes in a run
)

// followingOf returns how to follow the rules of a connection, nil when none of its groups has one. source are its devices without the tags that were selected.
func followingOf(c *config.Connection, d drivers.Driver, source map[string]config.Device) *following {
	f := &following{option: c.Protocol.Rule}
	f.selector, _ = d.(drivers.Selector)
	for i, dev := range c.Devices {
		was, ok := source[dev.Name]
		if !ok {
			was = *dev
		}
		f.source = append(f.source, was)
		for j := range dev.Groups {
			if dev.Groups[j].Selects {
				tags := dev.Groups[j].Tags[len(was.Groups[j].Tags):]
				f.rules = append(f.rules, ruledGroup{ref: drivers.Ref{Device: i, Group: j}, key: keyOf(c, dev, &dev.Groups[j]), tags: tags})
			}
		}
	}
	if f.selector == nil || len(f.rules) == 0 {
		return nil
	}
	f.found = make([]*drivers.Selection, len(f.rules))
	return f
}

// followRules looks for what the rules of groups select: after each connect, when the device says that it has changed, and when somebody wants it.
func (g *Gateway) followRules(ctx context.Context) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		g.mu.Lock()
		connections := g.running.connections
		g.mu.Unlock()
		for _, c := range connections {
			if c.following != nil && ctx.Err() == nil {
				g.follow(ctx, c)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// follow goes on with the rules of a connection, for about as long as followEvery, and puts into force what they select.
func (g *Gateway) follow(ctx context.Context, c *connection) {
	f := c.following
	if !f.due(time.Now()) {
		return
	}
	for begin := time.Now(); f.next < len(f.rules); {
		if err := f.portion(ctx, c, g.selections); err != nil { // the link is down, or the device is busy
			f.next = 0
			return
		}
		if time.Since(begin) > followEvery {
			return
		}
	}
	now := time.Now()
	if now.Sub(f.at) > calm {
		f.changes = 0
	}
	f.next, f.seen, f.at = 0, f.models, now.Add(g.selections.every<<f.changes)
	if !g.selections.take(f, g.log) {
		f.refused.Store(nil)
		return
	}
	if !g.selections.afford(f) {
		return
	}
	f.changes = min(f.changes+1, maxDoublings)
	switch err := g.reselect(ctx, c); {
	case ctx.Err() != nil:
	case err == nil:
		f.refused.Store(nil)
	default:
		g.selections.drop(f)
		f.refuse(err)
		g.log.Error("the tags that a rule selects cannot be put into force, and those before stay until the device or the rule is another", "device", c.devices[0].name, "cause", err)
	}
}

// refuse notes why what was selected cannot be put into force.
func (f *following) refuse(why error) {
	var room *noRoom
	r := &refusal{all: true, fault: web.RuleFault{What: "the tags that the rules select cannot be put into force: " + why.Error(), Mend: "select others, or restart the gateway"}}
	if errors.As(why, &room) {
		for i := range f.rules {
			if key := &f.rules[i].key; key.device == room.device && key.group == room.group {
				r.group, r.all = f.rules[i].ref, false
			}
		}
		r.fault.What = fmt.Sprintf("the rule of group %q adds no tags: the store has no room for the names, units and descriptions of %s", room.group, telemetry.Count(room.tags, "tag"))
		r.fault.Mend = "select fewer, split the group, or raise buffer.max_size"
	}
	f.refused.Store(r)
}

// due reports whether there is something to do, and begins with it.
func (f *following) due(now time.Time) bool {
	if f.next > 0 {
		return true
	}
	models := f.selector.Models()
	wanted := f.again.Swap(false) || f.anew.Load()
	if !wanted && (models == f.seen || now.Before(f.at)) {
		return false
	}
	f.models = models
	return true
}

// portion goes on with one rule. What cannot be selected is said, and tried again after a while.
func (f *following) portion(ctx context.Context, c *connection, kept *selections) error {
	rule := &f.rules[f.next]
	limited, cancel := context.WithTimeout(ctx, selectTime)
	defer cancel()
	var s drivers.Selection
	has := kept.count(&rule.key)
	err := c.poller.Do(limited, func(d drivers.Driver) (err error) {
		s, err = f.selector.Select(limited, rule.ref)
		return err
	})
	switch {
	case err == nil && !s.Done:
		return nil
	case err == nil:
		f.found[f.next] = &s
	case limited.Err() != nil || errors.Is(err, drivers.ErrLink) || errors.Is(err, poller.ErrBusy) || errors.Is(err, poller.ErrOver):
		return err
	case has > 0:
		f.found[f.next] = &drivers.Selection{Note: fmt.Sprintf("it cannot be followed, and its %s stay: %v", telemetry.Count(has, "tag"), err)}
	default:
		f.found[f.next] = &drivers.Selection{Note: "nothing can be selected: " + err.Error()}
	}
	rule.fault.Store(rule.judge(&s, err, has, f.option))
	f.next++
	return nil
}

// judge says what is the matter with a rule that has so many tags, by the end of looking for what it selects; nil = nothing.
func (r *ruledGroup) judge(s *drivers.Selection, err error, has int, option string) *ruleFault {
	rule, mend := fmt.Sprintf("the rule of group %q ", r.key.group), fmt.Sprintf("see `%s` of that group, and the keys that narrow it", option)
	switch {
	case err != nil && has > 0:
		return &ruleFault{web.RuleFault{What: fmt.Sprintf("%scannot be followed, and its %s stay: %v", rule, telemetry.Count(has, "tag"), err), Mend: mend}, true}
	case err != nil:
		return &ruleFault{web.RuleFault{What: rule + "selects nothing: " + err.Error(), Mend: mend}, true}
	case len(s.Tags) == 0:
		return &ruleFault{web.RuleFault{What: rule + "selects nothing: " + cmp.Or(s.Note, "the device has nothing that it fits"), Mend: mend}, false}
	case s.Cut != "":
		return &ruleFault{web.RuleFault{What: rule + s.Cut, Mend: s.Mend}, false}
	}
	return nil
}

// fault says which rule of a device does not add what it should, and why. It may be called from any goroutine.
func (f *following) fault(device int) (fault web.RuleFault) {
	if r := f.refused.Load(); r != nil && (r.all || r.group.Device == device) {
		return r.fault
	}
	more := 0
	for i := range f.rules {
		switch of := f.rules[i].fault.Load(); {
		case of == nil || f.rules[i].ref.Device != device:
		case fault.What != "":
			more++
		default:
			fault = of.RuleFault
		}
	}
	if more > 0 {
		fault.What += fmt.Sprintf("; so it is, or alike, with %s more", web.Count(uint64(more), "group"))
	}
	return fault
}

// say logs what is the matter with a rule, once.
func (r *ruledGroup) say(log *slog.Logger, note string) {
	if note != r.said && note != "" {
		log.Warn("the browse rule of a group: "+note, "device", r.key.device, "group", r.key.group)
	}
	r.said = note
}

// reselect exchanges a connection for one with the tags that its rules select now. All others go on untouched.
func (g *Gateway) reselect(ctx context.Context, was *connection) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	if ctx.Err() != nil || !slices.Contains(g.running.connections, was) { // a reload was faster
		return ctx.Err()
	}
	cfg := g.running.cfg.Only(was.following.source)
	known := g.knownOf(cfg, []*connection{was})
	known.why = reselected
	c := cfg.Connections()[0]
	devices := deviceConfigs(&c)
	if slices.Equal(devices, was.devices) {
		return nil
	}
	g.learned.look(g.running.connections)
	conn, err := g.newConnection(cfg, c, devices, known)
	if err != nil {
		return err
	}
	conn.following.succeed(was.following)
	next := g.running
	next.writes = map[*connection]allowed{}
	next.connections = slices.Clone(g.running.connections)
	next.connections[slices.Index(next.connections, was)] = conn
	for _, other := range next.connections {
		next.writes[other] = g.running.writes[other]
	}
	if next.writes[conn], err = allow(conn, &c, rulesFor(cfg, &c)); err != nil {
		return err
	}
	if _, err := g.apply(&next); err != nil {
		return fmt.Errorf("exchange the connection: %w", err)
	}
	g.missing.runs(next.connections)
	return nil
}

// withoutSelected builds a connection without the tags that its rules have selected, when it cannot be built with them: they do not fit the store, and that must not keep a gateway from its
// start. c becomes the connection that was built.
func (g *Gateway) withoutSelected(cfg *config.Config, c *config.Connection, known known, why error) (*connection, error) {
	var devices []config.Device
	selects := false
	for _, d := range c.Devices {
		was, ok := known.source[d.Name]
		if !ok {
			was = *d
		}
		devices, selects = append(devices, was), selects || ok
	}
	if !selects {
		return nil, why
	}
	*c = cfg.Only(devices).Connections()[0]
	conn, err := g.newConnection(cfg, *c, deviceConfigs(c), known)
	if err != nil {
		return nil, err
	}
	g.log.Error("a device has only the tags that its config lists until its rules have been followed, because those that they had selected do not fit", "device", devices[0].Name, "cause", why)
	if conn.following != nil {
		g.selections.drop(conn.following)
		conn.following.refuse(why)
	}
	return conn, nil
}

// succeed takes over what was said, so that it is not said again, what is the matter with rules, and when there is something to do.
func (f *following) succeed(was *following) {
	f.changes, f.at = was.changes, was.at
	if heir, ok := f.selector.(drivers.Heir); ok {
		heir.Inherit(was.selector)
	}
	for i := range f.rules {
		for j := range was.rules {
			if f.rules[i].key == was.rules[j].key {
				f.rules[i].said = was.rules[j].said
				f.rules[i].fault.Store(was.rules[j].fault.Load())
			}
		}
	}
}

// accepted has the rules of a connection followed at once that could not be, for what a person has accepted now.
func (f *following) accepted() {
	for i := range f.rules {
		if was := f.rules[i].fault.Load(); was != nil && was.unfollowed {
			f.rules[i].fault.CompareAndSwap(was, nil)
		}
	}
	f.again.Store(true)
}

// lookAgain has all rules followed once more. anew drops the tags whose nodes are gone.
func lookAgain(connections []*connection, anew bool) {
	for _, c := range connections {
		if f := c.following; f != nil {
			f.again.Store(true)
			if anew {
				f.anew.Store(true)
			}
		}
	}
}
