package gateway

import (
	"fmt"
	"strings"
	"time"

	"millrace/buffer"
	"millrace/gateway/config"
	"millrace/gateway/poller"
	"millrace/gateway/web"
)

// tellLeft says that the store is a backup, or that the last process was killed, the power failed or its disk hung. What it had not committed it alone knew: nobody
// can count it. Known is until when all that it took is safe; tellLost has gap messages sent of what came then.
func (g *Gateway) tellLeft(cfg *config.Config) {
	left := g.buf.Left()
	if left.Before() == "" {
		return
	}
	safe := "not known"
	if at := safeUntil(left, time.Now(), g.clock.unset.Load()); at.After(poller.NotKnown()) {
		safe = at.UTC().Format(time.RFC3339)
	}
	waiting := uint64(0)
	for _, d := range g.buf.Stats().Destinations {
		waiting = max(waiting, d.Backlog)
	}
	what := BeforeText(left.Before())
	if left.Before() == buffer.BeforeUnclean {
		missing := "nothing that was on its way through the store is missing, unless its disk took nothing then"
		if every := cfg.Buffer.CommitInterval; every > 0 {
			missing = fmt.Sprintf("up to %v of readings from before it that were not delivered may be missing; if its disk took nothing then, all from after safe_until", every)
		}
		what = unclean + "; " + missing + "; what was on disk is kept and is sent"
	}
	g.log.Warn(what+"; a gap message tells of it for each device", "safe_until", safe, "records_waiting", waiting)
}

// leftOver is what a process before has left that stands until a person acknowledges it. A kill or a power cut is none: what that costs is known beforehand.
type leftOver struct {
	Before string    // of buffer.Stats
	Safe   time.Time `json:",omitzero"` // until then all that was taken is safe; zero = nobody knows
	First  time.Time // the start that found it, and the last of those
	Last   time.Time
}

// stands reports whether what the process before has left stands until a person acknowledges it.
func stands(before string) bool {
	return before != "" && before != buffer.BeforeUnclean
}

// text says why readings may be missing, after "by".
func (e *leftOver) text() string {
	safe := "a time that nobody knows"
	if !e.Safe.IsZero() {
		safe = e.Safe.UTC().Format(time.RFC3339)
	}
	start := e.Last.UTC().Format(time.RFC3339)
	switch e.Before {
	case buffer.BeforeRestored:
		return fmt.Sprintf("a backup that was put in the store's place: what came from %s until the start at %s and was not delivered is not in it", safe, start)
	case buffer.BeforeOlder:
		return fmt.Sprintf("an older copy of the store or of its state.db, or another store, that was put in its place: what came from %s until the start at %s and was not delivered may be missing", safe, start)
	case buffer.BeforeGone:
		return fmt.Sprintf("the store's files being gone at the start at %s: there was a store here, and nobody knows what waited in it", start)
	}
	return fmt.Sprintf("state.db of the store being lost or damaged at the start at %s: nobody knows what was in memory before, from %s on", start, safe)
}

// noteLeft keeps what the process before has left, until a person acknowledges it. What of it stands already is the same, and goes on until now.
func (l *losses) noteLeft(left buffer.Left, safe time.Time) {
	before := left.Before()
	if !stands(before) {
		return
	}
	if !safe.After(poller.NotKnown()) {
		safe = time.Time{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.by[uncounted]
	if e == nil {
		e = &loss{}
		l.by[uncounted] = e
	}
	l.dirty, l.urgent = true, true
	for i := range e.LeftOver {
		if had := &e.LeftOver[i]; had.Before == before {
			had.Safe, had.Last = earlier(had.Safe, safe), l.now()
			return
		}
	}
	e.LeftOver = append(e.LeftOver, leftOver{before, safe, l.now(), l.now()})
}

// uncountedIn completes what is said of losses that nobody could count: damages, of which loss has the number, and what processes before have left.
func (l *loss) uncountedIn(loss *web.Loss) {
	var causes []string
	if loss.Readings > 0 {
		causes = append(causes, web.Count(loss.Readings, "damage")+" to the store's files")
	}
	for i := range l.LeftOver {
		e := &l.LeftOver[i]
		causes = append(causes, e.text())
		if loss.From.IsZero() || e.First.Before(loss.From) {
			loss.From = e.First
		}
		if e.Last.After(loss.To) {
			loss.To = e.Last
		}
	}
	loss.Causes = strings.Join(causes, "; and by ")
}

// BeforeText says in words what the process before has left, of buffer.Stats; "" for what is as it should be.
func BeforeText(before string) string {
	switch before {
	case buffer.BeforeRestored:
		return "the store was restored from a backup: nothing is in it that came afterwards; what it holds is sent, also what was delivered since"
	case buffer.BeforeOlder:
		return "an older copy of the store or of its state.db, or another store, was put in its place: what came afterwards may be missing; what it holds is sent, also what was delivered since"
	case buffer.BeforeGone:
		return "there was a store here, and its files are gone: what waited in it is lost, and nobody can count it; if they were moved away, stop the gateway and move them back"
	case buffer.BeforeUnknown:
		return "state.db of the store was lost or damaged: nobody knows whether the last stop was clean, and what was in memory then; what was on disk is kept and is sent"
	case buffer.BeforeUnclean:
		return unclean + "; what it had neither delivered nor written is lost; what was on disk is kept and is sent"
	}
	return ""
}

// unclean is what can be the matter with a stop.
const unclean = "the last stop was not clean: the process was killed, the power failed, the disk took nothing at the stop, or this is a copy of a store in use"

// Why a gap begins where the store of the process before was safe last, in words.
const (
	gapUnclean  = "the gateway was not stopped cleanly: what it had neither delivered nor written to its store is lost"
	gapUnknown  = "state.db was lost or damaged: nobody knows whether the gateway was stopped cleanly"
	gapGone     = "the files of the gateway's store were gone: what waited in it is lost"
	gapOlder    = "an older copy of the store, or another store, was put in its place: what it took afterwards may be missing"
	gapRestored = "the store was restored from a backup: what it took afterwards is not in it"
)

// accountsOf returns the names in a ledger.
func accountsOf(ledger []buffer.Account) map[string]bool {
	names := make(map[string]bool, len(ledger))
	for i := range ledger {
		names[ledger[i].Name] = true
	}
	return names
}

// accepting is how long before it is given its number a record may have been read: Append waits for a slow disk.
const accepting = 2 * time.Second

// tellLost notes for each device what the process before may have read and not kept: all since the store was safe, until now. had reports whether the store knew
// of a device: after a kill one that is new has lost nothing; a backup or an older store may not know one that had readings. A device that pushes what changes is told of by its poller, from a moment before that.
func (g *Gateway) tellLost(had map[string]bool) {
	left, now := g.buf.Left(), time.Now()
	gap := buffer.Gap{To: now.UnixMicro(), Cause: buffer.CauseOutage}
	switch left.Before() {
	case buffer.BeforeRestored:
		gap.Reason = gapRestored
	case buffer.BeforeOlder:
		gap.Reason = gapOlder
	case buffer.BeforeGone:
		gap.Reason = gapGone
	case buffer.BeforeUnknown:
		gap.Reason = gapUnknown
	case buffer.BeforeUnclean:
		gap.Reason = gapUnclean
	default:
		return
	}
	if from := safeUntil(left, now, g.clock.unset.Load()).Add(-accepting); from.After(poller.NotKnown()) && from.Before(now) {
		gap.From = from.UnixMicro()
	}
	told := g.missing.tells(pushingIn(g.running.connections))
	g.buf.MissedBy(func(device string) bool {
		return !told(device) && (left.Before() != buffer.BeforeUnclean || had[device])
	}, gap)
}
