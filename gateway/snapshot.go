package gateway

import (
	"net/url"
	"time"

	"millrace/buffer"
	"millrace/gateway/config"
	"millrace/gateway/poller"
	"millrace/gateway/publisher"
	"millrace/gateway/web"
)

// Snapshot returns the state of the whole gateway at this moment. It costs the same whatever the backlog.
func (g *Gateway) Snapshot() *web.Snapshot {
	now := time.Now()
	s := &web.Snapshot{Gateway: g.cfg.Gateway, Version: g.version, Epoch: g.buf.Epoch(), Started: g.started, Now: now}
	ledger := map[string]*buffer.Account{}
	for _, a := range g.buf.Ledger() {
		ledger[a.Name] = &a
	}
	for _, l := range g.lines {
		stats := l.poller.Stats()
		for i, d := range l.conn.Devices {
			s.Devices = append(s.Devices, deviceView(d, &stats, i, ledger[d.Name]))
		}
	}
	st := g.buf.Stats()
	for i, p := range g.uplinks {
		v := destinationView(&g.cfg.Destinations[i], p, s.Devices, i)
		for _, d := range st.Destinations {
			if d.Name == v.Name && d.OldestAt > 0 {
				v.OldestAge = now.Sub(time.UnixMicro(d.OldestAt))
			}
		}
		s.Destinations = append(s.Destinations, v)
	}
	s.Buffer = g.bufferView(&st, now)
	s.Process = web.ReadProcess()
	return s
}

func deviceView(d *config.Device, stats *poller.Stats, i int, a *buffer.Account) web.Device {
	ds := &stats.Devices[i]
	v := web.Device{Name: d.Name, Driver: d.Driver, URL: PublicURL(d.URL), Up: stats.Up, Reason: ds.Reason, Since: ds.Since}
	for _, gs := range ds.Groups {
		v.Groups = append(v.Groups, web.Group{Name: gs.Name, Interval: gs.Interval, Tags: gs.Tags, Polls: gs.Polls, Failed: gs.Failed,
			Overruns: gs.Overruns, LastPoll: gs.Last, MaxLate: gs.MaxLate, LastAt: gs.LastAt})
	}
	if a == nil {
		return v
	}
	v.Polled, v.Suppressed, v.Accepted = a.Polled, a.Suppressed, a.Accepted
	for _, d := range a.Destinations {
		v.Accounts = append(v.Accounts, web.Account{Destination: d.Name, Before: d.Before, Delivered: d.Delivered,
			Buffered: d.Buffered, InFlight: d.InFlight, Dropped: drops(d.Dropped)})
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

func destinationView(d *config.Destination, p *publisher.Publisher, accounts []web.Device, i int) web.Destination {
	s := p.Stats()
	v := web.Destination{Name: d.Name, URL: PublicURL(d.URL), State: s.State.String(), Since: s.Since, LastError: s.LastError,
		Sent: s.Sent, Acked: s.Acked, Resent: s.Resent, Bytes: s.Bytes, Reconnects: max(s.Sessions, 1) - 1,
		BacklogRecords: s.Unacked, InFlight: uint64(s.InFlight)}
	for k := range accounts {
		if i < len(accounts[k].Accounts) {
			a := &accounts[k].Accounts[i]
			v.BacklogReadings += a.Buffered + a.InFlight
		}
	}
	return v
}

func (g *Gateway) bufferView(st *buffer.Stats, now time.Time) web.Buffer {
	v := web.Buffer{Path: g.cfg.Buffer.Path, Bytes: st.Bytes, MaxBytes: st.MaxBytes, Segments: st.Segments, TailBytes: st.TailBytes,
		Commits: st.Commits, BytesWritten: st.BytesWritten, NextSeq: st.NextSeq, Health: st.Health, Corrupt: st.Damages}
	if ran := now.Sub(g.started).Hours(); st.BytesWritten > 0 && ran > 0 {
		left := float64(st.MaxBytes-st.Bytes) / (float64(st.BytesWritten) / ran)
		v.HoursLeft = &left
	}
	return v
}
