package gateway

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"time"

	"millrace/gateway/command"
	"millrace/gateway/config"
	"millrace/gateway/web"
)

// reloads is what is told of them. mu guards it.
type reloads struct {
	since         time.Time // when the config in force was loaded
	done, refused uint64
	problem       string // why the last one was refused; "" = it was not
	mistakes      int    // of the config, that the problem is; 0 = the config itself is right
	problemAt     time.Time
}

// The ways in which a reload is refused before the config is looked at.
var (
	errNoLoader = errors.New("reload config: this gateway was started without a config file; restart it with the new config")
	errStopping = errors.New("reload config: the gateway is stopping; the next start takes the new config")
)

// Reload loads the config again and puts it into force: all of it, or nothing and the old one runs on. What the new
// config does not change goes on untouched. It waits for a start or a reload under way, and returns when the new config is in
// force; what it replaced may take a few seconds more to end, and what replaces that waits for it. Errors: those of
// config.Load, a refusal that names each key that needs a restart, or what stands in the way of the new config.
func (g *Gateway) Reload(ctx context.Context) (*web.Change, error) {
	select {
	case <-g.begun:
	case <-ctx.Done():
		return nil, errStopping
	}
	g.reloading.Lock()
	defer g.reloading.Unlock()
	g.watchdog.reloading.Store(max(int64(time.Since(g.started)), 1))
	defer g.watchdog.reloading.Store(0)
	c, err := g.reload(ctx)
	g.note(c, err)
	g.acts.Add(1) // whoever is told of the reload and asks finds its judgement
	g.giveBack()
	return c, err
}

func (g *Gateway) reload(ctx context.Context) (*web.Change, error) {
	if g.o.Load == nil {
		return nil, errNoLoader
	}
	cfg, err := g.o.Load()
	if err != nil {
		return nil, err
	}
	if err := g.needsRestart(g.running.cfg, cfg); err != nil {
		return nil, err
	}
	g.learned.look(g.running.connections) // for those that take their places
	next, err := g.prepare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	change := changeOf(&g.running, next)
	gone, err := g.apply(next)
	if err != nil {
		return nil, err
	}
	g.missing.runs(next.connections)
	g.selections.forget(next.connections)
	lookAgain(next.connections, false)
	g.warn(cfg)
	return change, g.release(gone)
}

// settled is when what runs anew has made what it keeps: most groups have been polled, and their data types are known.
const settled = 10 * time.Second

// giveBack returns to the system what loading a config took beside what runs, once the connections that it replaced have
// ended, and once more when what runs anew has settled: the runtime would keep it for minutes, and with many tags it is more than all the rest.
func (g *Gateway) giveBack() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.polling == nil {
		return
	}
	g.polling.start(func(context.Context) error {
		debug.FreeOSMemory()
		return nil
	}, g.ending.all()...)
	if g.settle == nil {
		g.settle = time.AfterFunc(settled, debug.FreeOSMemory)
	} else {
		g.settle.Reset(settled)
	}
}

// prepare builds what cfg wants beside what runs, and takes over what is equal; the groups of cfg's devices are gone
// afterwards. It changes nothing that runs. Only
// Reload changes what runs, so until apply it can be read without mu, and the page answers all the while.
func (g *Gateway) prepare(ctx context.Context, cfg *config.Config) (*running, error) {
	next := &running{cfg: cfg.WithoutTags(), hash: cfg.Hash()}
	if err := g.prepareConnections(cfg, next); err != nil {
		return nil, err
	}
	if err := g.preparePage(ctx, next); err != nil {
		return nil, err
	}
	if err := g.prepareDestinations(cfg, next); err != nil {
		g.discard(next)
		return nil, err
	}
	return next, nil
}

func (g *Gateway) prepareConnections(cfg *config.Config, next *running) error {
	now, known := map[string]*connection{}, g.knownOf(cfg, g.running.connections)
	next.writes = map[*connection]allowed{}
	for _, c := range g.running.connections {
		now[c.key()] = c
	}
	links := cfg.Connections()
	for i := range links {
		c := links[i]
		conn, devices := now[c.Devices[0].Name], deviceConfigs(&c)
		if conn == nil || !slices.Equal(conn.devices, devices) {
			var err error
			if conn, err = g.newConnection(cfg, c, devices, known); err != nil {
				if conn, err = g.withoutSelected(cfg, &c, known, err); err != nil {
					return err
				}
			}
		}
		next.connections = append(next.connections, conn)
		may, rules := g.running.writes[conn], rulesFor(cfg, &c)
		if !reflect.DeepEqual(may.rules, rules) {
			var err error
			if may, err = allow(conn, &c, rules); err != nil {
				return err
			}
		}
		next.writes[conn] = may
		for _, d := range links[i].Devices {
			d.Groups = nil // so that the config goes as what is built of it comes
		}
		links[i] = config.Connection{}
	}
	return nil
}

// preparePage opens the page's port if it is another one than now.
func (g *Gateway) preparePage(ctx context.Context, next *running) (err error) {
	old, w := g.running.page, next.cfg.Web
	if !w.Enabled || old != nil && old.listen == w.Listen {
		if w.Enabled {
			next.page = old
		}
		return nil
	}
	next.page = &page{listen: w.Listen}
	next.page.listener, err = web.Listen(ctx, w.Listen, web.Bounds{Most: pageShare(g.descriptors.limit()), Admit: g.descriptors.admit}, g.log)
	if err != nil && old != nil {
		return fmt.Errorf("%w; if it is this gateway itself that has it (its page is now at %q), a restart moves the page", err, old.listen)
	}
	return err
}

// prepareDestinations comes last: a destination that the store has not had gets its place there, which only discard takes back.
func (g *Gateway) prepareDestinations(cfg *config.Config, next *running) error {
	for i := range cfg.Destinations {
		d := &cfg.Destinations[i]
		dest := find(g.running.destinations, func(r *destination) bool { return r.cfg.Name == d.Name })
		if dest == nil || !sameDestination(dest.cfg, *d) {
			if g.buf.Destination(d.Name) == nil {
				if _, err := g.buf.AddDestination(d.Name, startOf(d)); err != nil {
					return err
				}
			}
			var err error
			if dest, err = g.newDestination(cfg, d); err != nil {
				return fmt.Errorf("prepare destination %q: %w", d.Name, err)
			}
		}
		next.destinations = append(next.destinations, dest)
	}
	return nil
}

// discard takes back what was prepared and will not run.
func (g *Gateway) discard(next *running) {
	if p := next.page; p != nil && p != g.running.page {
		_ = p.listener.Close()
	}
	configured := g.running.cfg.Destinations
	for _, d := range g.buf.Stats().Destinations {
		if d.Configured && !slices.ContainsFunc(configured, func(c config.Destination) bool { return c.Name == d.Name }) {
			g.removeDestination(d.Name)
		}
	}
}

// apply exchanges what runs, and returns what was told to end. It cannot fail but for the gateway's stopping.
func (g *Gateway) apply(next *running) (gone *running, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.polling == nil {
		g.discard(next)
		return nil, errStopping
	}
	gone = g.running.without(next)
	g.judge.succeed(gone.connections, next.connections)
	gone.stop()
	if g.o.SetLogLevel != nil {
		g.o.SetLogLevel(next.cfg.Log.Level)
	}
	g.running = *next
	g.startNew(gone)
	g.show()
	return gone, nil
}

// startNew starts what is to run and does not, after what it replaces. mu is held.
func (g *Gateway) startNew(gone *running) {
	if p := g.running.page; p != nil && p.task == nil {
		p.task = g.publishing.start(func(ctx context.Context) error { return g.servePage(ctx, p.listener) })
	}
	for _, d := range g.running.destinations {
		if d.task == nil {
			d.task = g.publishing.start(d.Run, gone.sessions()...)
		}
	}
	var targets []command.Target
	for _, c := range g.running.connections {
		targets = append(targets, g.running.writes[c].targets...)
	}
	g.commands.Set(targets)
	g.ending.add(gone.connections)
	for _, c := range g.running.connections {
		if c.task == nil {
			c.task = g.polling.start(func(ctx context.Context) error {
				defer g.missing.ended(c)
				return c.run(ctx, g.values)
			}, g.ending.before(c)...)
		}
	}
}

// release takes the destinations that are gone from the config out of the store's service once their publishers have
// ended, and warns of what is kept for them. They get nothing new; what they have not acknowledged stays until they come back, are forgotten, or a full store needs the room.
func (g *Gateway) release(gone *running) error {
	var left []string
	for _, d := range gone.destinations {
		if slices.ContainsFunc(g.running.cfg.Destinations, func(c config.Destination) bool { return c.Name == d.cfg.Name }) {
			continue
		}
		<-d.ended
		g.removeDestination(d.cfg.Name)
		left = append(left, d.cfg.Name)
	}
	warnAbsent(g.buf, func(name string) bool { return slices.Contains(left, name) }, g.log)
	return nil
}

func (g *Gateway) removeDestination(name string) {
	if err := g.buf.RemoveDestination(name); err != nil {
		g.log.Error("a destination that left the config holds the store until the next start", "destination", name, "cause", err)
	}
}

// note remembers how a reload went, and logs it.
func (g *Gateway) note(c *web.Change, err error) {
	now, found := time.Now(), 0
	var mistakes *config.Errors
	if errors.As(err, &mistakes) {
		found = len(mistakes.List) + mistakes.More
	}
	g.mu.Lock()
	r := &g.reloads
	if err == nil {
		*r = reloads{since: now, done: r.done + 1, refused: r.refused}
	} else {
		r.refused++
		r.problem, r.mistakes, r.problemAt = err.Error(), found, now
	}
	since := r.since
	g.mu.Unlock()
	if err == nil {
		g.log.Info("config reloaded", "config", c.Hash, "changes", c.String())
		return
	}
	if mistakes == nil {
		g.log.Error("reload refused; nothing was changed", "cause", err)
		return
	}
	for _, m := range mistakes.List[:min(len(mistakes.List), maxLogged)] {
		g.log.Error("config mistake", "at", m)
	}
	g.log.Error("reload refused; the config loaded before stays in force", "mistakes", found, "in_force_since", since.Format(time.RFC3339))
}

// warn logs what a person should know of a config that is in force.
func (g *Gateway) warn(cfg *config.Config) {
	for _, w := range cfg.Warnings[:min(len(cfg.Warnings), maxLogged)] {
		g.log.Warn("config", "at", w)
	}
}

// maxLogged is how many mistakes of a config are logged; `millrace check` shows all.
const maxLogged = 10

func find[T any](list []*T, is func(*T) bool) *T {
	for _, v := range list {
		if is(v) {
			return v
		}
	}
	return nil
}
