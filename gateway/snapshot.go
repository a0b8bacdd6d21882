package gateway

import (
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"millrace/buffer"
	"millrace/drivers/peer"
	"millrace/drivers/telemetry"
	"millrace/gateway/poller"
	"millrace/gateway/publisher"
	"millrace/gateway/web"
)

// Snapshot returns the state of the whole gateway at this moment. It costs the same whatever the backlog.
func (g *Gateway) Snapshot() *web.Snapshot {
	s := g.state()
	s.Process = web.ReadProcess()
	return s
}

// state is Snapshot without what the process costs its machine: to look through /proc is a third of the work.
func (g *Gateway) state() *web.Snapshot {
	if g.watchdog.viewed.CompareAndSwap(0, max(int64(time.Since(g.started)), 1)) {
		defer g.watchdog.viewed.Store(0)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now, cfg := time.Now(), g.running.cfg
	s := &web.Snapshot{Gateway: cfg.Gateway, Version: g.o.Version, Epoch: g.buf.Epoch(), Started: g.started, Now: now, Config: g.configView()}
	accounts := g.buf.Ledger()
	ledger, waiting := byDevice(accounts)
	tags := g.values.Count()
	s.Devices = make([]web.Device, 0, len(ledger)) // each that runs has an account
	for _, c := range g.running.connections {
		stats := c.poller.Stats()
		for i, d := range c.devices {
			v := deviceView(d, &stats, i, ledger[d.name], g.running.destinations)
			for j := range v.Groups {
				if c.planned != nil {
					v.Groups[j].Planned = c.planned[i][j]
				}
			}
			if n := tags[d.name]; n != nil {
				v.Tags, v.Good, v.Uncertain, v.Bad = n.Tags, n.Good, n.Uncertain, n.Bad
				v.BadTag, v.BadReason = n.BadTag, n.BadReason
				for class, bad := range n.BadBy {
					v.BadTagsBy[class] = uint64(bad)
				}
			}
			c.ask(&v, i, &stats)
			v.Awaited, v.Ended = c.exchanged(&stats, i, now) || now.Before(stats.Devices[i].Begins), g.polling == nil
			for class := range v.BadBy {
				v.BadBy[class] = c.bad[i][class].Load()
			}
			s.Devices = append(s.Devices, v)
		}
	}
	st := g.buf.Stats()
	for _, d := range g.running.destinations {
		v := destinationView(d, now)
		v.BacklogReadings = waiting[v.Name]
		for i := range st.Destinations {
			if o := &st.Destinations[i]; o.Name == v.Name && o.OldestAt > 0 {
				v.OldestAge = now.Sub(time.UnixMicro(o.OldestAt))
			}
		}
		v.Behind = d.trend.see(now, v.State == web.StateConnected && v.OldestAge > tooOld, v.BacklogRecords-min(v.BacklogRecords, v.Held))
		s.Destinations = append(s.Destinations, v)
	}
	s.Buffer = g.bufferView(&st)
	s.Buffer.OutageHours = g.outageEstimate(&st, acceptedReadings(accounts), now)
	if p := g.running.page; p != nil {
		s.Page = web.Page{Connections: p.listener.Open(), Refused: p.listener.Refused()}
	}
	s.Commands = g.commandCounts()
	s.Clock = g.clock.view()
	s.Certificates = g.certificates()
	s.Exposures = g.exposures()
	s.Changes = changesOf(g.running.connections)
	s.Stalls = g.stalls()
	s.Losses = g.losses.look(accounts, !st.Refusing.IsZero())
	s.Absent = absentOf(&st, waiting, g.losses.absent(&st))
	s.Judge()
	g.judge.stamp(s)
	return s
}

// Acts counts what people have had done.
func (g *Gateway) Acts() *atomic.Uint64 { return &g.acts }

// absentOf are the destinations that are not in the config and hold records; waiting has their readings.
func absentOf(st *buffer.Stats, waiting map[string]uint64, since map[string]time.Time) (list []web.Absent) {
	for i := range st.Destinations {
		if d := &st.Destinations[i]; !d.Configured && d.Backlog > 0 {
			list = append(list, web.Absent{Name: d.Name, Records: d.Backlog, Readings: waiting[d.Name], Since: since[d.Name]})
		}
	}
	return list
}

func (g *Gateway) commandCounts() (list []web.Commands) {
	for _, c := range g.commands.Stats() {
		list = append(list, web.Commands(c))
	}
	return list
}

// certificates are those of the destinations and devices. mu is held.
func (g *Gateway) certificates() (all []web.Certificate) {
	add := func(kind, owner string, of peer.Certified) {
		for _, c := range of.Certificates() {
			all = append(all, web.Certificate{Kind: kind, Owner: owner, Own: c.Own, Name: c.Name, Authority: c.Authority, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Next: c.Next, Replaced: c.Replaced})
		}
	}
	for _, d := range g.running.destinations {
		if d.certified != nil {
			add("destination", d.cfg.Name, d.certified)
		}
	}
	for _, conn := range g.running.connections {
		if conn.certified != nil {
			add("device", conn.devices[0].name, conn.certified)
		}
	}
	return all
}

// exposures are what the config gives up of its devices' protection. mu is held.
func (g *Gateway) exposures() (all []web.Exposure) {
	for _, conn := range g.running.connections {
		if conn.exposed == nil {
			continue
		}
		if what, mend := conn.exposed.Exposure(); what != "" {
			all = append(all, web.Exposure{Device: conn.devices[0].name, What: what, Mend: mend})
		}
	}
	return all
}

// ask takes what the driver itself says of a device, and of the connection at its first one.
func (c *connection) ask(v *web.Device, i int, stats *poller.Stats) {
	v.Skew = c.skews[i].get()
	if c.learner != nil {
		v.Learned = configLines(c.learner.Learned(i))
	}
	if c.redundant != nil {
		v.Path, v.SparePaths = c.redundant.Paths()
	}
	if c.following != nil {
		v.Rule = c.following.fault(i)
	}
	if i > 0 {
		return
	}
	v.Connects = &web.Connects{Attempts: stats.Connects, Failed: stats.ConnectErrors, IdleCloses: stats.IdleCloses}
	if c.noted != nil {
		v.Notes = c.noted.Notes()
	}
	if c.troubled != nil {
		v.Trouble = c.trouble()
	}
}

// trouble is what is the matter with a connection, shown at its first device.
func (c *connection) trouble() web.Trouble {
	t := c.troubled.Trouble()
	if n := len(c.devices) - 1; n > 0 && t.State != "" {
		t.What += fmt.Sprintf("; it is the line of %s more", web.Count(uint64(n), "device"))
	}
	return web.Trouble(t)
}

// byDevice sorts the ledger: each device's account, and the readings that wait for each destination, those of devices that
// are no longer polled included.
func byDevice(accounts []buffer.Account) (ledger map[string]*buffer.Account, waiting map[string]uint64) {
	ledger, waiting = make(map[string]*buffer.Account, len(accounts)), map[string]uint64{}
	for i := range accounts {
		a := &accounts[i]
		ledger[a.Name] = a
		for _, d := range a.Destinations {
			waiting[d.Name] += d.Buffered + d.InFlight
		}
	}
	return ledger, waiting
}

// configView is the config in force. mu is held.
func (g *Gateway) configView() web.Config {
	r := &g.reloads
	return web.Config{File: g.running.cfg.File, Hash: g.running.hash, Since: r.since, Reloads: r.done, Refused: r.refused, Problem: r.problem, Mistakes: r.mistakes, ProblemAt: r.problemAt}
}

// longAt is how long a poll or a job lasts that is worth a word.
const longAt = 2 * time.Second

func deviceView(d deviceConfig, stats *poller.Stats, i int, a *buffer.Account, destinations []*destination) web.Device {
	ds := &stats.Devices[i]
	v := web.Device{Name: d.name, Driver: d.driver, URL: d.shown, Connected: stats.Up, Reason: ds.Reason, Since: ds.Since}
	if stats.Up && v.Reason == poller.NotYet {
		v.Reason, v.Beginning = "", true
	}
	if stats.Lasts >= longAt {
		v.LineAt = fmt.Sprintf("%s for %s", stats.At, telemetry.Short(stats.Lasts.Round(time.Second)))
	}
	v.Groups = make([]web.Group, 0, len(ds.Groups))
	for _, gs := range ds.Groups {
		v.Groups = append(v.Groups, web.Group{Name: gs.Name, Interval: gs.Interval, Tags: gs.Tags, Polls: gs.Polls, Failed: gs.Failed,
			Pushed: gs.Pushed, Pushes: gs.Pushes, Lost: gs.Lost, Overruns: gs.Overruns, MissedAt: gs.MissedAt, Behind: string(gs.Behind.Cause), BehindFor: gs.Behind.For, BehindBy: gs.Behind.By, LastPoll: gs.Last, MaxLate: gs.MaxLate, LastAt: gs.LastAt})
	}
	if a == nil {
		return v
	}
	v.Polled, v.Suppressed, v.Accepted = a.Polled, a.Suppressed, a.Accepted
	for _, u := range destinations { // the store lists them in an order of its own, with those of older configs
		for _, d := range a.Destinations {
			if d.Name == u.cfg.Name {
				v.Accounts = append(v.Accounts, web.Account{Destination: d.Name, Before: d.Before, Delivered: d.Delivered,
					Buffered: d.Buffered, InFlight: d.InFlight, Dropped: drops(d.Dropped)})
			}
		}
	}
	return v
}

func drops(n [buffer.Causes]uint64) web.Drops {
	return web.Drops{Full: n[buffer.CauseFull], Expired: n[buffer.CauseExpired], Rejected: n[buffer.CauseRejected],
		Shutdown: n[buffer.CauseShutdown], Damaged: n[buffer.CauseDamaged]}
}

// PublicURL returns the url without user name and password, fit for logs and pages.
func PublicURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(unreadable url)"
	}
	u.User = nil
	return u.String()
}

// stuckFor is how long a record may be overdue. Each reason to wait that there is, is known, so this is for none.
const stuckFor = 30 * time.Second

func destinationView(d *destination, now time.Time) web.Destination {
	s := d.Stats()
	v := web.Destination{Name: d.cfg.Name, URL: PublicURL(d.cfg.URL), State: string(s.State), Since: s.Since, LastError: s.LastError,
		Sent: s.Sent, Acked: s.Acked, Resent: s.Resent, Rejected: s.Rejected, Bytes: s.Bytes, Stray: s.Stray, Discarded: s.Discarded,
		AckLatency: s.AckLatency, AckMax: s.AckMax, Reconnects: max(s.Sessions, 1) - 1,
		BacklogRecords: s.Unacknowledged, InFlight: uint64(s.InFlight), Held: uint64(s.Held)}
	for _, b := range s.Breakers {
		v.Breakers = append(v.Breakers, web.Breaker{Device: b.Device, Topic: b.Topic, State: string(b.State), Since: b.Since, Held: b.Held,
			NextTry: b.NextTry, Reason: b.Reason})
	}
	v.Stuck = stuckSince(&s, now)
	return v
}

// stuckSince is since when a destination is stuck, zero when it is not.
func stuckSince(s *publisher.Stats, now time.Time) time.Time {
	if s.Overdue == 0 || now.Sub(s.OverdueSince) < stuckFor {
		return time.Time{}
	}
	return s.OverdueSince
}

// unseenRemade is when the store's directory was taken away last, zero when a person has acknowledged that. mu is held.
func (g *Gateway) unseenRemade(st *buffer.Stats) time.Time {
	if !st.Remade.After(g.remadeSeen) {
		return time.Time{}
	}
	return st.Remade
}

func (g *Gateway) bufferView(st *buffer.Stats) web.Buffer {
	return web.Buffer{Path: g.running.cfg.Buffer.Path, Bytes: st.Bytes, MaxBytes: st.MaxBytes, Segments: st.Segments, TailBytes: st.TailBytes,
		Commits: st.Commits, BytesWritten: st.BytesWritten, NextSeq: st.NextSeq, Health: st.Health, FailingSince: st.FailingSince, Corrupt: st.Damages, Unclean: st.Unclean, Refusing: st.Refusing,
		RefusedUntil: st.RefusedUntil, RefusingDisk: st.RefusingDisk, RefusingFor: st.RefusingFor, Remade: g.unseenRemade(st), DiskFull: st.DiskFull, DiskFree: g.free.Load(), NoInodes: g.noInodes.Load()}
}
