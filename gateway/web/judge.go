package web

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/drivers/telemetry"
)

// State is how one part of the gateway stands, in the words that the page, /metrics, /readyz, the log and the commands all
// use. README.md has the table of states.
type State struct {
	Kind   string    `json:"kind"` // device, destination, store, certificate, clock, config, process
	Name   string    `json:"name"`
	State  string    `json:"state"` // one of the table
	Since  time.Time `json:"since"` // zero = unknown
	Reason string    `json:"reason"`
	Do     string    `json:"do"` // what to do
}

// The states, loudest first.
const (
	StateLosing    = "losing data"
	StateHung      = "hung"
	StateFailing   = "failing"
	StateLost      = "lost data"
	StateStuck     = "stuck"
	StateDown      = "down"
	StateChanged   = "changed"
	StatePartlyBad = "partly bad"
	StateContested = "contested"
	StateOnSpare   = "on spare path"
	StateLate      = "late"
	StateUnset     = "not set"
	StateJumped    = "jumped"
	StateRefused   = "refused"
	StateAbsent    = "absent"
	StateExpired   = "expired"
	StateEnding    = "expires this week"
	StateEndsSoon  = "expires soon"
	StateRenewed   = "renewed"
	StateExposed   = "exposed"
	StateOK        = "ok"
)

var loudness = []string{StateLosing, StateHung, StateFailing, StateLost, StateStuck, StateExpired, StateEnding, StateDown, StateChanged, StatePartlyBad, StateContested, StateOnSpare, StateLate, StateUnset, StateJumped,
	StateEndsSoon, StateExposed, StateRenewed, StateRefused, StateAbsent, StateOK}

// String returns the state as a sentence. It has no age in it, so that it reads the same wherever and whenever it is shown.
func (s *State) String() string {
	text := fmt.Sprintf("%s %q: %s", s.Kind, s.Name, s.State)
	if !s.Since.IsZero() {
		text += " since " + s.Since.UTC().Format(time.RFC3339)
	}
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	if s.Do != "" {
		text += "; " + s.Do
	}
	return text
}

// MarshalJSON adds the sentence.
func (s State) MarshalJSON() ([]byte, error) {
	type plain State
	return json.Marshal(struct {
		plain
		Text string `json:"text"`
	}{plain(s), s.String()})
}

// Level returns how urgent the state is: LevelOK, LevelWarn or LevelBad.
func (s *State) Level() string {
	switch s.State {
	case StateLosing, StateHung, StateFailing, StateLost, StateStuck, StateExpired:
		return LevelBad
	case StateOK:
		return LevelOK
	}
	return LevelWarn
}

// Outdoes reports whether s is worse than another state of the same thing, and stands in its place: lost data does not end
// because a destination is down.
func (s *State) Outdoes(other *State) bool {
	return s.Kind == other.Kind && s.Name == other.Name && s.about() == other.about() &&
		slices.Index(loudness, s.State) < slices.Index(loudness, other.State)
}

// about says which states of one thing stand in each other's place.
func (s *State) about() string {
	switch s.State {
	case StateLosing, StateLost:
		return StateLost
	case StateHung, StateChanged:
		return s.State
	}
	return ""
}

// Judge computes the state of every part of the gateway: the one place where it is decided. It fills States with those
// that are not ok, loudest first, and State and Up of each device.
func (s *Snapshot) Judge() {
	s.States = []State{}
	s.judgeStore()
	s.judgeRemade()
	for i := range s.Losses {
		s.add(s.Losses[i].judge(&s.Buffer))
	}
	for i := range s.Stalls {
		s.add(s.Stalls[i].State())
	}
	for i := range s.Destinations {
		s.add(s.Destinations[i].judge())
	}
	for i := range s.Devices {
		d := &s.Devices[i]
		st := d.judge(s.Now)
		d.State, d.Up = st.State, st.State != StateDown
		s.add(st)
	}
	for _, a := range s.Absent {
		s.add(State{"destination", a.Name, StateAbsent, a.Since, "it is not in the config any more, gets nothing new, and keeps " + Count(a.Readings, "reading") + " in the store",
			fmt.Sprintf("put it back, or `millrace buffer forget %s` gives them up", a.Name)})
	}
	s.add(s.Config.judge())
	s.add(s.Clock.judge())
	s.judgeCertificates()
	for _, e := range s.Exposures {
		s.add(State{"login", e.Device, StateExposed, time.Time{}, e.What, e.Mend})
	}
	for _, c := range s.Changes {
		if i := slices.IndexFunc(s.Devices, func(d Device) bool { return d.Name == c.Device }); i >= 0 && s.Devices[i].State == StateOK {
			s.Devices[i].State = StateChanged
		}
		s.add(State{"device", c.Device, StateChanged, c.Since, c.What, c.Mend + "; `millrace ack` takes it as it is"})
	}
	slices.SortStableFunc(s.States, func(a, b State) int {
		return cmp.Compare(slices.Index(loudness, a.State), slices.Index(loudness, b.State))
	})
}

func (s *Snapshot) add(st State) {
	if st.State != StateOK {
		s.States = append(s.States, st)
	}
}

func (s *Snapshot) judgeStore() {
	if s.Buffer.Health != HealthOK {
		do := "see to its directory and its disk"
		if s.Buffer.DiskFull {
			do = s.Buffer.makeRoom()
		}
		why := strings.TrimPrefix(strings.TrimPrefix(s.Buffer.Health, "failing: "), "degraded: ")
		s.add(State{"store", s.Buffer.Path, StateFailing, s.Buffer.FailingSince, why, do + "; the store goes on by itself then"})
	}
	if !s.Buffer.Refusing.IsZero() {
		why, do := "it is full, and new readings are refused (when_full: drop-newest); what is free of buffer.max_size is kept for state.db and the next commit", "it ends when a destination takes its backlog; a larger buffer.max_size needs a restart"
		switch names := s.Buffer.RefusingFor; {
		case !s.Buffer.RefusedUntil.IsZero() && s.Buffer.Health != HealthOK:
			why = "new readings were refused until " + s.Buffer.RefusedUntil.UTC().Format(time.RFC3339) + "; they are taken again, but the store is failing (when_full: drop-newest)"
			if do = "see why it is failing"; s.Buffer.DiskFull {
				do = s.Buffer.makeRoom()
			}
		case !s.Buffer.RefusedUntil.IsZero():
			why = "new readings were refused until " + s.Buffer.RefusedUntil.UTC().Format(time.RFC3339) + "; there is room again (when_full: drop-newest)"
			do = "this notice ends by itself; the gap messages say what is missing"
		case len(names) > 0:
			alone, takes := "that alone", "that takes its backlog, or is"
			if len(names) > 1 {
				alone, takes = "these alone", "these take their backlogs, or are"
			}
			why = fmt.Sprintf("it is full of what has not gone to %s, and new readings are refused for %s (when_full: drop-newest)", strings.Join(names, ", "), alone)
			do = "it ends when " + takes + " taken out of the config; a larger buffer.max_size needs a restart"
		case s.Buffer.RefusingDisk && s.Buffer.DiskFull:
			why, do = "its disk has no space left, its memory is full, and new readings are refused", s.Buffer.makeRoom()+"; the store goes on by itself then"
		case s.Buffer.RefusingDisk:
			why, do = "its disk takes nothing, its memory is full, and new readings are refused", "see to its disk; the store goes on by itself then"
		}
		s.add(State{"store", s.Buffer.Path, StateLosing, s.Buffer.Refusing, why, do})
	}
}

// judgeRemade tells that the store's directory was taken away.
func (s *Snapshot) judgeRemade() {
	if !s.Buffer.Remade.IsZero() {
		s.add(State{"store", s.Buffer.Path, StateChanged, s.Buffer.Remade, "its directory, or the lock in it, was taken away while in use; what memory has was written anew, and what only its files had is told of as lost",
			"see who took it; `millrace ack` ends this notice"})
	}
}

// fullBelow is how many free bytes a full disk may be said to have. More was seen before it was full, or a quota is what is full.
const fullBelow = 1 << 20

// makeRoom says what to do about a disk that others have filled.
func (b *Buffer) makeRoom() string {
	free := ""
	if b.NoInodes {
		return "remove files on the disk of " + b.Path + ", which has no inode free for a new one (see df -i)"
	}
	if b.DiskFree != nil && *b.DiskFree < fullBelow {
		free = fmt.Sprintf(" (%s bytes free)", Thousands(uint64(max(*b.DiskFree, 0))))
	}
	return "make room on the disk of " + b.Path + free
}

func (l *Loss) judge(b *Buffer) State {
	if l.Destination == "" {
		do := "their gap messages say of when; `millrace ack` ends this notice"
		if l.Readings > 0 {
			do = "`millrace buffer verify` shows what is damaged; `millrace ack` ends this notice"
		}
		return State{"store", b.Path, StateLost, l.From, "readings that nobody can count, by " + l.Causes, do}
	}
	st := State{"destination", l.Destination, StateLost, l.From, fmt.Sprintf("%s (%s), the last noticed at %s; their gap messages say of when", Count(l.Readings, "reading"), l.Causes, l.To.UTC().Format(time.RFC3339)),
		"`millrace ack` ends this notice"}
	if l.Losing {
		st.State, st.Since, st.Do = StateLosing, l.LosingSince, "the ledger has the causes by device; `millrace ack` once it has ended"
		if b.DiskFull {
			st.Do = "the store's disk has no space left: " + b.makeRoom() + "; `millrace ack` once it has ended"
		}
	}
	return st
}

// ByDamage says in words what damage to the store's files has cost, or their being exchanged, that nobody has acknowledged, "" for nothing.
func (l *Loss) ByDamage() string {
	switch {
	case l.Destination == "":
		return "readings that nobody can count, by " + l.Causes + ", and nobody has said `millrace ack`"
	case l.Damaged == 0:
		return ""
	}
	return fmt.Sprintf("%s of destination %q, by damage, and nobody has said `millrace ack`", Count(l.Damaged, "reading"), l.Destination)
}

// State is the stall as a state.
func (x *Stall) State() State {
	return State{x.Kind, x.Name, StateHung, x.Since, x.What + " takes longer than " + x.Limit.String(), "the log has a goroutine dump; restart the gateway if it lasts"}
}

func (d *Destination) judge() State {
	st := State{Kind: "destination", Name: d.Name, State: StateOK, Since: d.Since}
	if d.State != StateConnected {
		st.State, st.Reason = StateDown, cmp.Or(d.LastError, d.State) // the state changes with each attempt
		st.Do = "its readings are kept, and it is tried again"
		return st
	}
	if !d.Stuck.IsZero() {
		st.State, st.Since, st.Reason = StateStuck, d.Stuck, fmt.Sprintf("it is connected, and the oldest of the %s that wait for it does not go out, though nothing is seen that keeps it", Count(d.BacklogRecords, "record"))
		st.Do = "it is read again after a minute; please report this, and restart the gateway if it lasts"
	} else if text := d.refuses(); text != "" {
		st.State, st.Since, st.Reason, st.Do = StatePartlyBad, d.Breakers[0].Since, text, "the page has its reasons; see its policy for these topics"
	} else if !d.Behind.IsZero() {
		st.State, st.Since, st.Reason = StateLate, d.Behind, "it takes fewer records than come, and what waits grows"
		st.Do = "see what slows the link or its broker, or send less: report: on-change, longer intervals"
	}
	return st
}

// judge names what stood in the way of a reload and what to do; mistakes of the config are many, and `millrace check` shows them.
func (c *Config) judge() State {
	st := State{"config", c.File, StateRefused, c.ProblemAt, "the last reload was refused; the one before runs on", "`millrace check` shows every mistake"}
	switch why, mend, said := strings.Cut(strings.TrimPrefix(c.Problem, "reload config: "), "; "); {
	case c.Problem == "":
		st.State = StateOK
	case c.Mistakes == 0:
		st.Reason, st.Do = "the last reload was refused, and the config before runs on: "+why, "see to that and reload again"
		if said {
			st.Do = mend
		}
	}
	return st
}

func (c *Clock) judge() State {
	st := State{"clock", "system", c.State, c.Since, c.Reason, "readings are marked until it is set; run an NTP service"}
	switch c.State {
	case StateUnset:
	case StateJumped:
		st.Do = "readings from before have other times; see what sets the clock"
	default:
		st.State = StateOK
	}
	return st
}

// lateFor, and three intervals, is how long missed polls keep a device late at most.
const lateFor = time.Minute

func (d *Device) judge(now time.Time) State {
	st := State{Kind: "device", Name: d.Name, State: StateOK, Since: d.Since}
	example := ""
	if d.BadTag != "" {
		example = fmt.Sprintf(", first %q: %s", d.BadTag, d.BadReason)
	}
	switch late, do := d.late(now); {
	case d.Awaited:
	case d.Beginning:
		st.State, st.Reason, st.Do = StateLate, "it is connected, and its first poll is not over yet", "see what takes so long"
		if d.LineAt != "" {
			st.Reason += ": its line is at " + d.LineAt
		}
	case d.Reason != "" || !d.Connected:
		st.State, st.Reason, st.Do = StateDown, cmp.Or(d.Reason, "not connected"), d.retryAdvice()
	case d.Tags > 0 && d.Bad == d.Tags:
		st.State, st.Since, st.Reason, st.Do = StateDown, time.Time{}, "it answers, and all its "+Count(uint64(d.Tags), "tag")+" are bad"+example, d.showBad()
	case d.Rule.What != "":
		st.State, st.Since, st.Reason, st.Do = StatePartlyBad, time.Time{}, d.Rule.What, d.Rule.Mend
		if d.Tags == 0 && !(d.Ended && slices.ContainsFunc(d.Groups, func(g Group) bool { return g.Tags > 0 })) { // at a stop the values are gone first
			st.State = StateDown
		}
		if d.Bad > 0 {
			st.Reason += "; " + d.someBad(example)
		}
	case d.Bad > 0:
		st.State, st.Since, st.Reason, st.Do = StatePartlyBad, time.Time{}, d.someBad(example), d.showBad()
	case d.Trouble.State != "":
		t := &d.Trouble
		st.State, st.Since, st.Reason, st.Do = t.State, t.Since, t.What, t.Mend
	case late != "":
		st.State, st.Since, st.Reason, st.Do = StateLate, time.Time{}, late, do
	}
	return st
}

func (d *Device) someBad(example string) string {
	return fmt.Sprintf("%d of %s bad%s", d.Bad, Count(uint64(d.Tags), "tag"), example)
}

func (d *Device) showBad() string { return fmt.Sprintf("`millrace values %s --bad` shows all", d.Name) }

// retryAdvice says what to do about a device that is down. Power and line are to be looked at where nothing answers; a device that
// answers with a refusal has both, and a reason that says itself what to do needs nothing more.
func (d *Device) retryAdvice() string {
	class := telemetry.ClassOf(d.Reason)
	if d.Reason == "" || !strings.Contains(d.Reason, "; ") && (class == telemetry.NoAnswer || class == telemetry.NotConnected) {
		return "it is tried again; see its power, its line and its url"
	}
	return "it is tried again"
}

// late says in words why the device's readings come late, and what to do; "" when they do not.
func (d *Device) late(now time.Time) (why, do string) {
	for i := range d.Groups {
		g := &d.Groups[i]
		if !d.Ended && !g.Pushed && !g.LastAt.IsZero() && now.Sub(g.LastAt) > 3*g.Interval+5*time.Second {
			why = fmt.Sprintf("group %q was last polled at %s", g.Name, g.LastAt.UTC().Format(time.RFC3339))
			if d.LineAt != "" {
				return why + ": its line is at " + d.LineAt, "see what that waits for; a shorter timeout ends it sooner"
			}
			return why, "see what else is on its line, and on the machine"
		}
		if g.Behind == "" || now.Sub(g.MissedAt) >= max(lateFor, 3*g.Interval) {
			continue
		}
		return g.missing()
	}
	return "", ""
}

// missing says in words why the group misses polls, and what to do.
func (g *Group) missing() (why, do string) {
	why, took := fmt.Sprintf("group %q misses polls of every %s: ", g.Name, telemetry.Short(g.Interval)), telemetry.Short(g.BehindFor.Round(time.Millisecond))
	switch g.Behind {
	case "line":
		if why += "one waits " + took + " for others of its line"; g.BehindBy != "" {
			why += ", the longest " + g.BehindBy
		}
		return why, "poll those on its line less often; mend what gives no answer, or shorten its timeout"
	case "store":
		return why + "the store takes " + took + " for the readings of one", "see whether its disk is slow; buffer.commit_interval: 0 waits for it at each poll"
	case "machine":
		return why + "one begins " + took + " late because the machine does not give the gateway its time", "see what else runs there, and what limits the gateway's processors"
	}
	if why += "one takes " + took; g.Planned > 0 && g.BehindFor > 2*g.Planned {
		return why + " where the plan has " + telemetry.Short(g.Planned.Round(time.Millisecond)) + ": the device answers slowly, or only when it is asked again after its timeout", "see what delays or loses answers on its line, or poll it less often"
	}
	return why, "poll it less often, or fewer tags; `millrace check` prints its requests"
}
