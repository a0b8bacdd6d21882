package poller

import (
	"math/bits"
	"time"
)

// Stats is the state of one connection for pages and metrics.
type Stats struct {
	Up            bool
	Reason        string // why the link is down
	Connects      uint64 // attempts to connect
	ConnectErrors uint64
	IdleCloses    uint64        // connections that the device had closed while idle, and that were made again under a poll
	At            At            // what it is at, a poll or a job or an attempt to connect
	Lasts         time.Duration // for how long; 0 when it waits for its next tick
	Devices       []DeviceStats
}

// DeviceStats is the state of one device.
type DeviceStats struct {
	Name   string
	Reason string    // why its readings are bad; "" when it answers
	Since  time.Time // when that began
	Begins time.Time // by when its first poll is to be over; zero when it is, or there is no connection
	Groups []GroupStats
}

// GroupStats counts the polls of one group.
type GroupStats struct {
	Name     string
	Interval time.Duration
	Pushed   bool          // the device pushes it while the link is up; it is not polled then
	Pushes   uint64        // pushes taken
	Lost     uint64        // readings known to be missing between pushes
	Polls    uint64        // ticks served, good or bad
	Failed   uint64        // ticks for which no tag could be read
	Overruns uint64        // ticks missed because the one before took too long
	Last     time.Duration // how long the last poll took
	MissedAt time.Time     // when a tick was last missed, not for want of an answer; zero when never
	Behind   Delay         // ticks are missed again and again, and what takes the time
	MaxLate  time.Duration // the latest start of a poll after its tick
	LastAt   time.Time     // when the last poll ended or the last push was taken; zero before the first
	Tags     int
	misses   uint8 // of the last eight polls, the newest lowest: ticks were missed
}

// count takes in a poll; d is why it came too late, nothing where that is no fault of anything but a device that gives no answer.
func (s *GroupStats) count(at time.Time, t took, d Delay, missed uint64, err error) {
	s.Polls++
	if err != nil {
		s.Failed++
	}
	s.misses <<= 1
	s.Overruns += missed
	late := d.Cause != OnTime
	if late {
		s.MissedAt, s.misses = at, s.misses|1
	}
	switch {
	case s.misses == 0:
		s.Behind = Delay{}
	case late && bits.OnesCount8(s.misses) > 1: // once is chance
		s.Behind = d
	}
	s.Last, s.LastAt = t.poll, at
	s.MaxLate = max(s.MaxLate, t.line+t.machine)
}

// inTime forgets the polls that came too late.
func (s *GroupStats) inTime() { s.misses, s.Behind = 0, Delay{} }

func (s *GroupStats) countPush(at time.Time, lost int) {
	s.Pushes++
	s.Lost += uint64(max(lost, 0))
	s.LastAt = at
}

// Stats returns a snapshot; it may be called at any time.
func (p *Poller) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Up: p.link.up, Reason: p.link.reason, Connects: p.stats.connects, ConnectErrors: p.stats.connectErrors,
		IdleCloses: p.stats.idleCloses, Devices: make([]DeviceStats, len(p.devices))}
	s.At, s.Lasts = p.Busy()
	for i, d := range p.devices {
		s.Devices[i] = DeviceStats{Name: d.name, Reason: d.reason, Since: d.since}
		if p.link.up && d.reason == NotYet {
			s.Devices[i].Begins = p.stats.connected.Add(firstTick + d.patience)
		}
	}
	for _, g := range p.groups {
		gs := g.stat
		gs.Name, gs.Interval, gs.Tags = g.name, g.interval, g.tags
		d := &s.Devices[g.ref.Device]
		d.Groups = append(d.Groups, gs)
	}
	return s
}
