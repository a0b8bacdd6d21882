package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
	"millrace/gateway/pipeline"
	"millrace/gateway/poller"
	"millrace/gateway/values"
)

// connection is one link to equipment, with the way of its readings into the buffer.
type connection struct {
	urls      []string            // all that lead to it, the config's first
	normal    func(string) string // the one form of all urls of a line
	devices   []deviceConfig
	bad       []badReadings // by device
	skews     []skew        // by device
	groups    []*groupSink
	pipelines []*pipeline.Group // of groups
	groupsOf  []int             // by device
	poller    *poller.Poller
	watched   watched
	certified drivers.Certified // nil = it has no certificates
	redundant drivers.Redundant // nil = it has one path
	troubled  drivers.Troubled  // nil = it never says so
	comparer  drivers.Comparer  // nil = it does not notice when a device is another one
	learner   drivers.Learner
	learning  []learning        // by device; nil = the driver learns nothing
	exposed   drivers.Exposed   // nil = it gives up no protection
	noted     drivers.Noted     // nil = it has nothing to say of a device that is well
	planned   [][]time.Duration // of a poll, by device and group; nil = not known
	upUntil   []time.Time       // by device; until then it counts as up while it was not tried: see succeed
	following *following        // nil = none of its groups has a rule
	still     bool              // some of its values are recorded only when they change
	*task
}

// deviceConfig is what is kept of a device's config: the tags of a large plant would take more memory than all the rest.
type deviceConfig struct {
	name, driver string
	shown        string   // its url without secrets
	sum          [32]byte // of its config
	empty        bool     // it has no tag, because its rules have not selected any yet
}

// badReadings counts the bad readings of a device by the class of their reason. The poller's goroutine counts, others look.
type badReadings [telemetry.ReasonClasses]atomic.Uint64

// count counts the bad ones of readings, which mostly share their reason.
func (b *badReadings) count(readings []telemetry.Reading) {
	reason, class := "", telemetry.ClassOf("")
	for i := range readings {
		r := &readings[i]
		if r.Quality != telemetry.Bad {
			continue
		}
		if r.Reason != reason {
			reason, class = r.Reason, telemetry.ClassOf(r.Reason)
		}
		b[class].Add(1)
	}
}

// urlsOf returns all urls that lead to a connection.
func urlsOf(c *config.Connection) []string {
	urls := []string{c.Connection.URL}
	for _, d := range c.Devices {
		urls = append(urls, d.Spares...)
	}
	return urls
}

func deviceConfigs(c *config.Connection) []deviceConfig {
	out := make([]deviceConfig, len(c.Devices))
	for i, d := range c.Devices {
		out[i] = deviceConfig{d.Name, d.Driver, PublicURL(d.URL), d.Sum(), d.Selects() && !slices.ContainsFunc(d.Groups, func(g config.Group) bool { return len(g.Tags)+len(g.Derived) > 0 })}
	}
	return out
}

// known is what is known of devices when their connections are built.
type known struct {
	source    map[string]config.Device // those that have rules, without the tags that these have selected
	answering map[string]bool          // by name, whether they answer the connections that run
	why       string                   // they are exchanged: see missing.since
}

func (g *Gateway) knownOf(cfg *config.Config, running []*connection) known {
	k := known{g.selections.apply(cfg), map[string]bool{}, reloaded}
	for _, c := range running {
		for _, d := range c.poller.Stats().Devices {
			k.answering[d.Name] = d.Reason == ""
		}
	}
	return k
}

// newConnection builds the driver of a connection, the way of its readings into the buffer, and the poller.
func (g *Gateway) newConnection(cfg *config.Config, c config.Connection, devices []deviceConfig, known known) (*connection, error) {
	d, err := c.Protocol.New(c.Connection)
	if err != nil {
		return nil, fmt.Errorf("prepare device %q: %w", c.Devices[0].Name, err)
	}
	conn := &connection{urls: urlsOf(&c), normal: c.Protocol.Normal, devices: devices, bad: make([]badReadings, len(devices)), skews: newSkews(len(devices)), upUntil: make([]time.Time, len(devices))}
	opened := openedBy(&c)
	o := poller.Options{Buffers: &g.buffers, Refusals: &g.refusals, Enter: func() (func(), error) { return g.descriptors.enter(opened) }, Log: g.log.With("url", PublicURL(c.Connection.URL)),
		RetryMin: c.Devices[0].Retry.Min, RetryMax: c.Devices[0].Retry.Max, Since: g.missing.since(devices, known.why), Answered: make([]bool, len(devices))}
	for i, dev := range c.Devices {
		o.Answered[i] = known.answering[dev.Name]
		sinks, pasts, beats := make([]poller.Sink, len(dev.Groups)), make([]poller.Sink, len(dev.Groups)), make([]time.Duration, len(dev.Groups))
		formulas, err := compile(dev)
		if err != nil {
			return nil, err
		}
		derived := pipeline.NewDevice(slices.Concat(formulas...))
		for j := range dev.Groups {
			ref := drivers.Ref{Device: i, Group: j}
			s, err := g.newGroupSink(cfg.Gateway, dev, &dev.Groups[j], dataTypes(d, ref), events(d, ref))
			if err != nil {
				return nil, fmt.Errorf("prepare device %q group %q: %w", dev.Name, dev.Groups[j].Name, err)
			}
			s.ref, s.bad, s.skew = ref, &conn.bad[i], &conn.skews[i]
			conn.groups = append(conn.groups, s)
			p := s.pipeline(&dev.Groups[j], derived, formulas[j])
			conn.pipelines = append(conn.pipelines, p)
			sinks[j], pasts[j], beats[j] = p.Take, p.Past, beat(&dev.Groups[j])
		}
		o.Sinks, o.Pasts, o.Beats = append(o.Sinks, sinks), append(o.Pasts, pasts), append(o.Beats, beats)
		conn.groupsOf = append(conn.groupsOf, len(sinks))
	}
	o.Details = conn.describe
	conn.watched.tracer, _ = d.(drivers.Tracer)
	conn.certified, _ = d.(drivers.Certified)
	conn.redundant, _ = d.(drivers.Redundant)
	conn.troubled, _ = d.(drivers.Troubled)
	conn.comparer, _ = d.(drivers.Comparer)
	if l, ok := d.(drivers.Learner); ok {
		conn.learner, conn.learning = l, learningOf(&c)
		g.learned.restore(l, conn.learning)
	}
	conn.following = followingOf(&c, d, known.source)
	conn.exposed, _ = d.(drivers.Exposed)
	conn.noted, _ = d.(drivers.Noted)
	conn.planned, conn.still = planned(&c, d), still(&c, d)
	o.Gaps = conn.missed
	conn.poller = poller.New(&c.Connection, d, o)
	return conn, nil
}

// beat returns how often a group that is pushed must be looked at, so that no heartbeat and no window's end is late by more than a tenth, or a second; 0 = never.
func beat(g *config.Group) (least time.Duration) {
	take := func(d time.Duration) {
		if d > 0 && (least == 0 || d/10 < least) {
			least = max(d/10, 1)
		}
	}
	for _, r := range g.Report {
		take(r.Heartbeat)
	}
	for _, a := range g.Aggregates {
		take(a.Over)
	}
	return least
}

// missed counts what a device has pushed in vain, and tells the destinations.
func (c *connection) missed(g *poller.Gap) {
	i := slices.IndexFunc(c.groups, func(s *groupSink) bool { return s.ref.Device == g.Device && (g.Group < 0 || s.ref.Group == g.Group) })
	c.groups[i].missed(g)
}

// still reports whether some values of a connection are recorded only when they change: those that the device pushes, and those with
// report: on-change.
func still(c *config.Connection, d drivers.Driver) bool {
	planner, _ := d.(drivers.Planner)
	for i, dev := range c.Devices {
		for j := range dev.Groups {
			if planner != nil && planner.Requests(drivers.Ref{Device: i, Group: j}) == 0 {
				return true
			}
			if slices.ContainsFunc(dev.Groups[j].Report, func(r config.TagReport) bool { return r.OnChange }) {
				return true
			}
		}
	}
	return false
}

// planned returns how long a poll of each group should take.
func planned(c *config.Connection, d drivers.Driver) [][]time.Duration {
	coster, ok := d.(drivers.Coster)
	if !ok {
		return nil
	}
	all := make([][]time.Duration, len(c.Devices))
	for i, dev := range c.Devices {
		for j := range dev.Groups {
			all[i] = append(all[i], coster.Cost(drivers.Ref{Device: i, Group: j}).Time)
		}
	}
	return all
}

// describe takes what a device says of the tags of a group. The poller's goroutine calls it.
func (c *connection) describe(ref drivers.Ref, details []telemetry.Details) {
	at := ref.Group
	for i := range ref.Device {
		at += c.groupsOf[i]
	}
	schema := c.pipelines[at].Describe(details)
	c.groups[at].values.Describe(schema.Tags)
}

// stopPatience is how long a poller that is told to stop may finish its poll. A device that takes longer has its
// request broken off, so that a reload ends.
const stopPatience = 5 * time.Second

// key names a connection: device names are unique, and a connection whose first device is another one is another.
func (c *connection) key() string { return c.devices[0].name }

// exclusive returns what no other connection may have at the same time.
func (c *connection) exclusive() []string {
	var keys []string
	for _, url := range c.urls {
		keys = append(keys, "url "+url)
	}
	for _, d := range c.devices {
		keys = append(keys, "device "+d.name)
	}
	return keys
}

// run shows the connection's groups among the values and polls.
func (c *connection) run(ctx context.Context, t *values.Table) error {
	for _, s := range c.groups {
		s.values = t.Group(s.schema, s.interval)
	}
	err := c.poller.Run(ctx)
	for _, p := range c.pipelines {
		err = errors.Join(err, p.Close(time.Now()))
	}
	c.watched.end()
	for _, s := range c.groups {
		t.Remove(s.values)
	}
	return err
}

// stop lets the poll in flight end.
func (c *connection) stop() {
	c.poller.Stop()
	time.AfterFunc(stopPatience, c.cancel)
}
