package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"time"

	"millrace/gateway/config"
	"millrace/gateway/poller"
	"millrace/gateway/publisher"
	"millrace/gateway/web"
)

// set is everything that a config wants to run but the store. What two sets have in common is the same pointer in both.
type set struct {
	cfg     *config.Config // without tags
	hash    string         // of the whole config
	lines   []*line        // in the order of cfg.Connections
	uplinks []*uplink      // in the order of cfg.Destinations
	site    *site          // nil = no pages
}

// line is one connection to the plant.
type line struct {
	url     string
	devices []plantDevice
	poller  *poller.Poller
	*task   // nil until it is started, as in the other two
}

// plantDevice is what is kept of a device's config: the tags of a large plant would take more memory than all the rest.
type plantDevice struct {
	name, driver, url string
	sum               [32]byte // of its config
}

func devicesOf(c *config.Connection) []plantDevice {
	out := make([]plantDevice, len(c.Devices))
	for i, d := range c.Devices {
		out[i] = plantDevice{d.Name, d.Driver, d.URL, d.Sum()}
	}
	return out
}

type uplink struct {
	*publisher.Publisher
	cfg config.Destination
	*task
}

type site struct {
	listen   string
	listener net.Listener
	*task
}

// reloads is what is told of them. mu guards it.
type reloads struct {
	since         time.Time // when the config in force was loaded
	done, refused uint64
	problem       string // why the last one was refused; "" = it was not
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
func (g *Gateway) Reload(ctx context.Context) (*Change, error) {
	select {
	case <-g.begun:
	case <-ctx.Done():
		return nil, errStopping
	}
	g.reloading.Lock()
	defer g.reloading.Unlock()
	c, err := g.reload(ctx)
	g.note(c, err)
	return c, err
}

func (g *Gateway) reload(ctx context.Context) (*Change, error) {
	if g.o.Load == nil {
		return nil, errNoLoader
	}
	cfg, err := g.o.Load()
	if err != nil {
		return nil, err
	}
	if err := g.needsRestart(g.set.cfg, cfg); err != nil {
		return nil, err
	}
	next, err := g.prepare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	change := changeOf(&g.set, next)
	return change, g.apply(next)
}

// prepare builds what cfg wants beside what runs, and takes over what is equal. It changes nothing that runs. Only
// Reload changes the set, so until apply it can be read without mu, and the page answers all the while.
func (g *Gateway) prepare(ctx context.Context, cfg *config.Config) (*set, error) {
	next := &set{cfg: cfg.WithoutTags(), hash: cfg.Hash()}
	for i := range cfg.Destinations {
		d := &cfg.Destinations[i]
		u := find(g.set.uplinks, func(u *uplink) bool { return u.cfg.Name == d.Name })
		if u == nil || !sameDestination(u.cfg, *d) {
			p, err := newUplink(cfg, d, g.buf, g.log)
			if err != nil {
				return nil, fmt.Errorf("prepare destination %q: %w", d.Name, err)
			}
			u = &uplink{Publisher: p, cfg: *d}
		}
		next.uplinks = append(next.uplinks, u)
	}
	running := map[string]*line{}
	for _, l := range g.set.lines {
		running[l.key()] = l
	}
	for _, c := range cfg.Connections() {
		l, devices := running[c.Devices[0].Name], devicesOf(&c)
		if l == nil || !slices.Equal(l.devices, devices) {
			var err error
			if l, err = g.newLine(c, devices); err != nil {
				return nil, err
			}
		}
		next.lines = append(next.lines, l)
	}
	return next, g.prepareSite(ctx, next)
}

// prepareSite opens the page's port if it is another one than now. It comes last: what it opens, nothing need close.
func (g *Gateway) prepareSite(ctx context.Context, next *set) (err error) {
	old, w := g.set.site, next.cfg.Web
	if !w.Enabled || old != nil && old.listen == w.Listen {
		if w.Enabled {
			next.site = old
		}
		return nil
	}
	next.site = &site{listen: w.Listen}
	next.site.listener, err = web.Listen(ctx, w.Listen)
	if err != nil && old != nil {
		return fmt.Errorf("%w; if it is this gateway itself that has it (its page is now at %q), a restart moves the page", err, old.listen)
	}
	return err
}

// apply exchanges the sets. It cannot fail but for the gateway's stopping.
func (g *Gateway) apply(next *set) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.polling == nil {
		if s := next.site; s != nil && s != g.set.site {
			_ = s.listener.Close()
		}
		return errStopping
	}
	gone := g.set.without(next)
	gone.stop()
	if g.o.SetLogLevel != nil {
		g.o.SetLogLevel(next.cfg.Log.Level)
	}
	g.set = *next
	g.startNew(gone)
	return nil
}

// startNew starts what of the set does not run, after what it replaces. mu is held.
func (g *Gateway) startNew(gone *set) {
	if s := g.set.site; s != nil && s.task == nil {
		s.task = g.publishing.start(func(ctx context.Context) error { return web.Run(ctx, s.listener, web.Handler(g.Snapshot)) })
	}
	for _, u := range g.set.uplinks {
		if u.task == nil {
			u.task = g.publishing.start(u.Run, gone.sessions()...)
		}
	}
	g.ending.add(gone.lines)
	for _, l := range g.set.lines {
		if l.task == nil {
			l.task = g.polling.start(l.poller.Run, g.ending.before(l)...)
		}
	}
}

// note remembers how a reload went, and logs it.
func (g *Gateway) note(c *Change, err error) {
	now := time.Now()
	g.mu.Lock()
	r := &g.reloads
	if err == nil {
		*r = reloads{since: now, done: r.done + 1, refused: r.refused}
	} else {
		r.refused++
		r.problem, r.problemAt = err.Error(), now
	}
	since := r.since
	g.mu.Unlock()
	if err == nil {
		g.log.Info("config reloaded", "config", c.Hash, "changes", c.String())
		return
	}
	var mistakes *config.Errors
	if !errors.As(err, &mistakes) {
		g.log.Error("reload refused; nothing was changed", "cause", err)
		return
	}
	for _, m := range mistakes.List[:min(len(mistakes.List), maxLogged)] {
		g.log.Error("config mistake", "at", m)
	}
	g.log.Error("reload refused; the config loaded before stays in force", "mistakes", len(mistakes.List)+mistakes.More, "in_force_since", since.Format(time.RFC3339))
}

// maxLogged is how many mistakes of a config are logged; `millrace check` shows all.
const maxLogged = 10

// needsRestart returns an error that names everything that cannot be changed while the gateway runs. The store takes
// its options when it is opened; the gateway's name stands in messages that may have to be sent again as they were.
func (g *Gateway) needsRestart(old, cfg *config.Config) error {
	var keys []string
	changed := func(key string, is bool) {
		if is {
			keys = append(keys, key)
		}
	}
	a, b := &old.Buffer, &cfg.Buffer
	changed("gateway", old.Gateway != cfg.Gateway)
	changed("buffer.path", a.Path != b.Path)
	changed("buffer.max_size", a.MaxSize != b.MaxSize)
	changed("buffer.max_age", a.MaxAge != b.MaxAge)
	changed("buffer.commit_interval", a.CommitInterval != b.CommitInterval)
	changed("buffer.when_full", a.WhenFull != b.WhenFull)
	changed("buffer.memory", a.Memory != b.Memory)
	changed("log.format", old.Log.Format != cfg.Log.Format)
	changed("log.level", old.Log.Level != cfg.Log.Level && g.o.SetLogLevel == nil)
	for _, name := range missing(old.Destinations, cfg.Destinations) {
		keys = append(keys, fmt.Sprintf("destination %q (removed)", name))
	}
	for _, name := range missing(cfg.Destinations, old.Destinations) {
		keys = append(keys, fmt.Sprintf("destination %q (added)", name))
	}
	if len(keys) == 0 {
		return nil
	}
	return fmt.Errorf("reload config: %s cannot change while the gateway runs; restart it, which loses nothing, or take this change back",
		strings.Join(keys, ", "))
}

// missing returns the names of the destinations in all that are not in some.
func missing(all, some []config.Destination) (names []string) {
	known := map[string]bool{}
	for i := range some {
		known[some[i].Name] = true
	}
	for i := range all {
		if !known[all[i].Name] {
			names = append(names, all[i].Name)
		}
	}
	return names
}

// sameDestination reports whether a publisher need not notice: start concerns only destinations that the store does not know.
func sameDestination(a, b config.Destination) bool {
	a.Start = b.Start
	return reflect.DeepEqual(a, b)
}

func find[T any](list []*T, is func(*T) bool) *T {
	for _, v := range list {
		if is(v) {
			return v
		}
	}
	return nil
}
