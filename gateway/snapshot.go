package gateway

import (
	"net/url"
	"time"

	"millrace/buffer"
	"millrace/gateway/poller"
	"millrace/gateway/web"
)

// Snapshot returns the state of the whole gateway at this moment. It costs the same whatever the backlog.
func (g *Gateway) Snapshot() *web.Snapshot {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	cfg := g.set.cfg
	s := &web.Snapshot{Gateway: cfg.Gateway, Version: g.o.Version, Epoch: g.buf.Epoch(), Started: g.started, Now: now, Config: g.configView()}
	ledger := map[string]*buffer.Account{}
	waiting := map[string]uint64{} // readings for each destination, those of devices that are no longer polled included
	accounts := g.buf.Ledger()
	for _, a := range accounts {
		ledger[a.Name] = &a
		for _, d := range a.Destinations {
			waiting[d.Name] += d.Buffered + d.InFlight
		}
	}
	for _, l := range g.set.lines {
		stats := l.poller.Stats()
		for i, d := range l.devices {
			s.Devices = append(s.Devices, deviceView(d, &stats, i, ledger[d.name], g.set.uplinks))
		}
	}
	st := g.buf.Stats()
	most := uint64(0)
	for _, u := range g.set.uplinks {
		v := destinationView(u)
		v.BacklogReadings = waiting[v.Name]
		most = max(most, v.BacklogReadings)
		for _, d := range st.Destinations {
			if d.Name == v.Name && d.OldestAt > 0 {
				v.OldestAge = now.Sub(time.UnixMicro(d.OldestAt))
			}
		}
		s.Destinations = append(s.Destinations, v)
	}
	s.Buffer = g.bufferView(&st)
	s.Buffer.HoursLeft = g.roomLeft(&st, acceptedReadings(accounts), most, now)
	s.Process = web.ReadProcess()
	return s
}

// configView is the config in force. mu is held.
func (g *Gateway) configView() web.Config {
	r := &g.reloads
	return web.Config{File: g.set.cfg.File, Hash: g.set.hash, Since: r.since, Reloads: r.done, Refused: r.refused, Problem: r.problem, ProblemAt: r.problemAt}
}

func deviceView(d plantDevice, stats *poller.Stats, i int, a *buffer.Account, uplinks []*uplink) web.Device {
	ds := &stats.Devices[i]
	v := web.Device{Name: d.name, Driver: d.driver, URL: PublicURL(d.url), Up: stats.Up, Reason: ds.Reason, Since: ds.Since}
	for _, gs := range ds.Groups {
		v.Groups = append(v.Groups, web.Group{Name: gs.Name, Interval: gs.Interval, Tags: gs.Tags, Polls: gs.Polls, Failed: gs.Failed,
			Overruns: gs.Overruns, LastPoll: gs.Last, MaxLate: gs.MaxLate, LastAt: gs.LastAt})
	}
	if a == nil {
		return v
	}
	v.Polled, v.Suppressed, v.Accepted = a.Polled, a.Suppressed, a.Accepted
	for _, u := range uplinks { // the store lists them in an order of its own, with those of older configs
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

func destinationView(u *uplink) web.Destination {
	s := u.Stats()
	var suspects []web.Suspect
	for _, x := range s.Suspects {
		suspects = append(suspects, web.Suspect{Device: x.Device, Topic: x.Topic, Held: x.Held, NextTry: x.NextTry})
	}
	return web.Destination{Name: u.cfg.Name, URL: PublicURL(u.cfg.URL), State: s.State.String(), Since: s.Since, LastError: s.LastError,
		Sent: s.Sent, Acked: s.Acked, Resent: s.Resent, Bytes: s.Bytes, Reconnects: max(s.Sessions, 1) - 1,
		BacklogRecords: s.Unacked, InFlight: uint64(s.InFlight), Held: uint64(s.Held), Suspects: suspects}
}

func (g *Gateway) bufferView(st *buffer.Stats) web.Buffer {
	return web.Buffer{Path: g.set.cfg.Buffer.Path, Bytes: st.Bytes, MaxBytes: st.MaxBytes, Segments: st.Segments, TailBytes: st.TailBytes,
		Commits: st.Commits, BytesWritten: st.BytesWritten, NextSeq: st.NextSeq, Health: st.Health, Corrupt: st.Damages}
}
