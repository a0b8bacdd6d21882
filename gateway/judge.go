package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/buffer"
	"millrace/gateway/web"
)

// judge remembers since when each state stands, and tells the log of changes. What the states are web.Judge decides.
type judge struct {
	log *slog.Logger

	mu     sync.Mutex
	states map[string]*standing // by kind, name and state
	notes  map[string][]string  // of devices, as they were said last
}

type standing struct {
	state          web.State // as it was seen last
	since, until   time.Time // until is the first look without it
	began          time.Time // since, of when the log said that it stands
	times          int       // that it has come back since, as far as was seen, and the log has not said so
	now            bool      // at the last look
	said           bool      // the log's last word is that it stands
	spoken, before time.Time // when the log said last that it does, and the time before
}

const (
	firstLook = 3 * time.Second // after the start: devices and brokers are still being dialled
	lookEvery = 2 * time.Second
	quiet     = time.Minute      // the log says at most twice in this time that a state stands
	settle    = 10 * time.Second // what stood for less may come and go: its end is said when it has stayed away for so long, and that it has come back when it has stayed
	maxLines  = 20               // of one look
)

func stateKey(s *web.State) string { return s.Kind + "\x00" + s.Name + "\x00" + s.State }

// stamp gives the states that do not know it since when they stand.
func (j *judge) stamp(s *web.Snapshot) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, st := range j.states {
		st.now = false
	}
	for i := range s.States {
		st := &s.States[i]
		known := j.states[stateKey(st)]
		if known == nil {
			known = &standing{}
			j.states[stateKey(st)] = known
		}
		if !known.now { // else there are two, as of a destination and a device of one name: the first of them is it
			known.look(st, s.Now)
			st.Since = known.since
		}
	}
	for key, st := range j.states {
		if !st.now {
			if st.until.IsZero() {
				st.until = s.Now
			}
			if !st.said && s.Now.Sub(st.spoken) > quiet {
				delete(j.states, key)
			}
		}
	}
}

// look notes that the state stands. One with another since has come and gone between two looks; by less than a second it is the same, worked out anew.
func (known *standing) look(st *web.State, now time.Time) {
	same := known.until.IsZero() && !known.since.IsZero() && (st.Since.IsZero() || st.Since.Sub(known.since).Abs() < time.Second)
	if !same {
		if !known.since.IsZero() {
			known.times++
		}
		if known.since = st.Since; st.Since.IsZero() {
			known.since = now
		}
	}
	known.now, known.until, known.state = true, time.Time{}, *st
	known.state.Since = known.since
}

// turns says how often the state has come since the log said that it stands, and in what time; nothing for once.
func (known *standing) turns(until time.Time) []any {
	if known.times == 0 {
		return nil
	}
	return []any{"times", known.times + 1, "within", until.Sub(known.began).Round(time.Second)}
}

// stands reports whether a state stood at the last look.
func (j *judge) stands(kind, name, state string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	known := j.states[stateKey(&web.State{Kind: kind, Name: name, State: state})]
	return known != nil && known.now
}

// tell logs what has changed: what no longer stands, then what does, loudest first, so that the last line of each thing is how it is now.
func (j *judge) tell(s *web.Snapshot) {
	j.mu.Lock()
	defer j.mu.Unlock()
	begun := j.begun(s)
	over := j.over(s)
	left := len(begun) + len(over) - maxLines
	begun = begun[:min(len(begun), maxLines)]
	for _, st := range over[:min(len(over), maxLines-len(begun))] {
		j.log.Info(ended(&st.state, s), append([]any{"lasted", st.until.Sub(st.since).Round(time.Second)}, st.turns(st.until)...)...)
	}
	for _, line := range begun {
		level := slog.LevelWarn
		if line.of.state.Level() == web.LevelBad {
			level = slog.LevelError
		}
		j.log.Log(context.Background(), level, line.of.state.String(), line.more...)
	}
	if left > 0 {
		j.log.Warn("more states have changed; the page and /readyz show all", "left_out", left)
	}
}

// entry is a line of the log, of a state that stands.
type entry struct {
	of   *standing
	more []any
}

// begun returns which states are to be said to stand, and takes them as said: those that are not, and those that have come back meanwhile and
// hold, of which the log has another since.
func (j *judge) begun(s *web.Snapshot) (list []entry) {
	for i := range s.States {
		st := j.states[stateKey(&s.States[i])]
		switch {
		case st == nil || s.Now.Sub(st.before) < quiet:
		case st.said && (st.since.Equal(st.began) || s.Now.Sub(st.since) < settle):
		default:
			line := entry{of: st}
			if st.said {
				line.more = st.turns(st.since)
			}
			st.said, st.before, st.spoken, st.began, st.times = true, st.spoken, s.Now, st.since, 0
			list = append(list, line)
		}
	}
	return list
}

// over returns which states are to be said to have ended, and takes them as said. The end of one that gave way to a worse one is told by the
// worse one's line, and waits for that while it is held back; that of one which gave way to a milder one is told with that one's, however late that may be said.
func (j *judge) over(s *web.Snapshot) (list []*standing) {
	for _, st := range j.states {
		if st.now || !st.said {
			continue
		}
		worse, told, waits := false, false, false
		for i := range s.States {
			now := &s.States[i]
			other := j.states[stateKey(now)]
			said := other != nil && other.said
			switch {
			case now.Outdoes(&st.state):
				worse, waits = worse || said, waits || !said
			case st.state.Outdoes(now):
				told = told || said && other.spoken.Equal(s.Now)
				waits = waits || !said
			}
		}
		switch {
		case worse:
			st.said = false
		case told, !waits && max(st.until.Sub(st.since), s.Now.Sub(st.until)) >= settle:
			st.said = false
			list = append(list, st)
		}
	}
	slices.SortFunc(list, func(a, b *standing) int { return strings.Compare(stateKey(&a.state), stateKey(&b.state)) })
	return list
}

// note logs each note of a device when it is new.
func (j *judge) note(s *web.Snapshot) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := map[string][]string{}
	for i := range s.Devices {
		d := &s.Devices[i]
		if len(d.Notes) == 0 {
			continue
		}
		now[d.Name] = d.Notes
		for _, note := range d.Notes {
			if !slices.Contains(j.notes[d.Name], note) {
				j.log.Warn("to be known of a device: "+note, "device", d.Name)
			}
		}
	}
	j.notes = now
}

// ended is what is said when a state no longer stands.
func ended(st *web.State, s *web.Snapshot) string {
	if st.Kind == "store" && st.State == web.StateChanged {
		return fmt.Sprintf("store %q: the notice that its directory was taken away has ended", st.Name)
	}
	switch st.State {
	case web.StateDown, web.StateHung, web.StateFailing, web.StateStuck, web.StateLate, web.StateChanged, web.StatePartlyBad, web.StateContested, web.StateOnSpare, web.StateLosing:
		if isGone(st, s) {
			return fmt.Sprintf("%s %q is no longer in the config; it was %s", st.Kind, st.Name, st.State)
		}
		return fmt.Sprintf("%s %q is no longer %s", st.Kind, st.Name, st.State)
	case web.StateLost:
		return fmt.Sprintf("%s %q: the notice of lost data has ended", st.Kind, st.Name)
	case web.StateAbsent:
		why := "the store keeps no record for it any more"
		if !isGone(st, s) {
			why = "it is in the config again"
		}
		return fmt.Sprintf("%s %q is no longer %s: %s", st.Kind, st.Name, st.State, why)
	}
	over := *st
	over.Do = "" // it is done
	return "no more: " + over.String()
}

// isGone reports whether a reload has taken out what had a state: that is no mending.
func isGone(st *web.State, s *web.Snapshot) bool {
	switch st.Kind {
	case "device":
		return !slices.ContainsFunc(s.Devices, func(d web.Device) bool { return d.Name == st.Name })
	case "destination":
		return !slices.ContainsFunc(s.Destinations, func(d web.Destination) bool { return d.Name == st.Name })
	}
	return false
}

// looks calls f soon after the start and then every two seconds until ctx ends, less often where that takes long, as in a large plant.
func looks(ctx context.Context, f func()) error {
	timer := time.NewTimer(firstLook)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		began := time.Now()
		f()
		timer.Reset(max(lookEvery, 20*time.Since(began)))
	}
}

// watchStates tells the log.
func (g *Gateway) watchStates(ctx context.Context) error {
	return looks(ctx, func() {
		s := g.state()
		g.judge.tell(s)
		g.judge.note(s)
	})
}

// keepNotes looks how much room the disk has, and writes what has come to be known and is to outlast the process. It waits for the disk, and nothing waits for it.
func (g *Gateway) keepNotes(ctx context.Context) error {
	return looks(ctx, func() {
		if free, known := FreeBytes(g.config().Buffer.Path); known {
			g.free.Store(&free)
		}
		g.noInodes.Store(buffer.NoInodes(g.config().Buffer.Path))
		if err := g.losses.save(); err != nil {
			g.log.Debug("not kept yet; trying again", "cause", err) // the store's own state says why
		}
		healthy := func() bool { return g.buf.Stats().Health == web.HealthOK }
		g.missing.settled(healthy)
		g.mu.Lock()
		connections := g.running.connections
		g.mu.Unlock()
		g.missing.note(g.missing.unfilled(connections), time.Now(), healthy)
		_ = g.keepLearned(false) // said in the log
	})
}

// Ack notes that a person has seen what was lost and which devices have changed.
func (g *Gateway) Ack(who string) (seen web.Seen, err error) {
	g.reloading.Lock() // else a connection may be exchanged meanwhile, and the new one not know
	defer g.reloading.Unlock()
	var unkept error
	if seen.Losses, unkept = g.losses.acknowledge(g.buf.Ledger(), who); errors.Is(unkept, buffer.ErrClosed) {
		return seen, unkept
	}
	g.mu.Lock()
	connections := g.running.connections
	st := g.buf.Stats()
	seen.Remade, g.remadeSeen = g.unseenRemade(&st), st.Remade
	g.mu.Unlock()
	g.buf.DamageSeen()
	seen.Changes = changesOf(connections)
	for _, c := range connections {
		if c.comparer != nil {
			changed := c.comparer.Changed().What != ""
			if c.comparer.Accept(); changed && c.following != nil {
				c.following.accepted()
			}
		}
	}
	for _, c := range seen.Changes {
		g.log.Info("a changed device is taken as it is", "device", c.Device, "by", who, "changed", c.What)
	}
	if unkept = errors.Join(unkept, g.keepLearned(true)); unkept != nil {
		seen.NotKept = strings.ReplaceAll(unkept.Error(), "\n", "; ")
		g.log.Warn("what was acknowledged is not on disk yet, which is tried again; a kill or a power cut before that may make it stand again", "by", who, "cause", seen.NotKept)
	}
	return seen, nil
}

// changesOf returns which devices are not what their config was written for.
func changesOf(connections []*connection) (all []web.DeviceChange) {
	for _, conn := range connections {
		if conn.comparer == nil {
			continue
		}
		if c := conn.comparer.Changed(); c.What != "" {
			all = append(all, web.DeviceChange{Device: conn.devices[0].name, Since: c.Since, What: c.What, Mend: c.Mend})
		}
	}
	return all
}
