package gateway

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"millrace/buffer"
	"millrace/gateway/poller"
	"millrace/gateway/web"
)

// losses knows what was lost and has not been acknowledged by a person. The store's ledger counts; this keeps beside it how
// much of the count somebody has seen, and when the rest was noticed, in the store's note, and in a file of its own for when state.db, which
// has the note, is lost.
type losses struct {
	buf  *buffer.Buffer
	file kept
	log  *slog.Logger
	now  func() time.Time

	unknown func() uint64 // losses that nobody could count

	saving sync.Mutex // one save at a time; taken before mu
	mu     sync.Mutex
	by     map[string]*loss // by destination
	dirty  bool             // the note is not what is known
	urgent bool             // and is more than times
	saved  time.Time
	looked bool      // not only at what the process before has left
	left   time.Time // when that noticed the last of what it has not kept when, at the latest; zero = not known

	had map[string][buffer.Causes]uint64 // what it had counted, by destination
}

// loss is what was lost for one destination, in readings.
type loss struct {
	Seen     [buffer.Causes]uint64 // acknowledged
	Total    [buffer.Causes]uint64 // in all
	From     time.Time             // of what is not acknowledged
	To       time.Time
	Left     time.Time  `json:",omitzero"`  // since when the destination is not in the config; zero when it is
	LeftOver []leftOver `json:",omitempty"` // of uncounted alone: what processes before have left, not acknowledged, by kind
	grown    time.Time  // when this process saw it grow
	losing   time.Time  // since when it does so with no pause; zero = it does not
}

const (
	losingFor = 10 * time.Second // after the last reading lost it is said that readings are being lost
	saveEvery = time.Minute      // how often the note is written when only a loss goes on; it is, too, when that has ended
)

func newLosses(buf *buffer.Buffer, dir string, log *slog.Logger) *losses {
	l := &losses{buf: buf, file: keptLosses(dir), log: log, now: time.Now, unknown: func() uint64 { return buf.Stats().LostUnknown }, by: map[string]*loss{}}
	l.remember(buf.Note())
	return l
}

// remember takes in the note.
func (l *losses) remember(note []byte) {
	if note == nil {
		note, _ = l.file.read() // as none when it is lost or damaged, too
	}
	if note != nil && json.Unmarshal(note, &l.by) != nil || l.by == nil {
		l.by = map[string]*loss{}
	}
}

// UnseenDamage says in words what damage has cost in a store that nobody runs on and nobody has acknowledged. unknown counts the losses that
// nobody could count.
func UnseenDamage(dir string, note []byte, accounts []buffer.Account, unknown uint64) (texts []string) {
	l := &losses{file: keptLosses(dir), now: time.Now, unknown: func() uint64 { return unknown }}
	l.remember(note)
	for _, x := range l.look(accounts, false) {
		if text := x.ByDamage(); text != "" {
			texts = append(texts, text)
		}
	}
	return texts
}

func keptLosses(dir string) kept {
	return kept{path: filepath.Join(dir, lossesFile), kind: "losses 1", most: 16 << 10}
}

// unseen returns how many readings nobody has acknowledged, and their causes in words.
func (l *loss) unseen() (n uint64, causes string) {
	for c, total := range l.Total {
		if more := total - min(l.Seen[c], total); more > 0 {
			if n += more; causes != "" {
				causes += ", "
			}
			causes += fmt.Sprintf("%s %s", web.Thousands(more), buffer.Cause(c))
			if buffer.Cause(c) == buffer.CauseRejected {
				causes += ", in quarantine"
			}
		}
	}
	return n, causes
}

// begin takes in the ledger, so that what the process before had noticed is not taken for news. What the store has found or given up since it was opened is news.
func (l *losses) begin(accounts []buffer.Account, left buffer.Left, clockUnset bool) {
	l.left = noticedUntil(left, l.now(), clockUnset)
	l.had = maps.Clone(left.Dropped)
	if l.had == nil {
		l.had = map[string][buffer.Causes]uint64{}
	}
	unknown := l.had[uncounted]
	unknown[buffer.CauseDamaged] = left.Uncounted
	l.had[uncounted] = unknown
	l.look(accounts, false)
}

// noticedUntil returns when the process before noticed a loss last, at the latest: when it counted one last, or until when it is known to have kept the store.
// Zero = not known.
func noticedUntil(left buffer.Left, now time.Time, clockUnset bool) time.Time {
	until := safeUntil(left, now, clockUnset)
	if left.Lost.After(until) && (clockUnset || !left.Lost.After(now)) {
		until = left.Lost
	}
	if !until.After(poller.NotKnown()) {
		return time.Time{}
	}
	return until
}

// when returns when the first and the last of what has come to a destination's losses since from were noticed.
func (l *losses) when(name string, from, total *[buffer.Causes]uint64, now time.Time) (first, last time.Time) {
	if first, last = now, now; l.looked || l.left.IsZero() {
		return first, last
	}
	had, news := l.had[name], false
	for c := range total {
		if min(had[c], total[c]) > from[c] { // the process before has noticed it, and not kept when
			first = l.left
		}
		news = news || total[c] > max(had[c], from[c])
	}
	if !news {
		last = l.left
	}
	return first, last
}

// look takes in the ledger and returns what is to be said. While the store refuses readings a loss that was seen to grow
// goes on, however seldom the next one is due.
func (l *losses) look(accounts []buffer.Account, refusing bool) (said []web.Loss) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, name := range l.take(accounts, now) {
		e := l.by[name]
		n, causes := e.unseen()
		switch losing := !e.grown.IsZero() && (refusing || now.Sub(e.grown) < losingFor); {
		case !losing:
			e.losing = time.Time{}
		case e.losing.IsZero():
			e.losing = e.grown
		}
		loss := web.Loss{Destination: name, Readings: n, Causes: causes, Damaged: e.Total[buffer.CauseDamaged] - min(e.Seen[buffer.CauseDamaged], e.Total[buffer.CauseDamaged]), From: e.From, To: e.To,
			Losing: !e.losing.IsZero(), LosingSince: e.losing}
		if name == uncounted {
			e.uncountedIn(&loss)
		}
		if loss.Causes != "" {
			said = append(said, loss)
		}
	}
	return said
}

// take brings the totals up to the ledger and returns the destinations in its order. mu is held.
func (l *losses) take(accounts []buffer.Account, now time.Time) (names []string) {
	totals := map[string]*[buffer.Causes]uint64{}
	for i := range accounts {
		for j := range accounts[i].Destinations {
			d := &accounts[i].Destinations[j]
			if totals[d.Name] == nil {
				totals[d.Name] = new([buffer.Causes]uint64)
				names = append(names, d.Name)
			}
			for c, n := range d.Dropped {
				totals[d.Name][c] += n
			}
		}
	}
	totals[uncounted] = new([buffer.Causes]uint64)
	totals[uncounted][buffer.CauseDamaged] = l.unknown()
	for name := range l.by {
		if totals[name] == nil { // forgotten
			delete(l.by, name)
			l.dirty = true
		}
	}
	for name, total := range totals {
		if l.by[name] == nil {
			l.by[name] = &loss{}
		}
		l.grow(name, total, now)
	}
	l.looked = true
	return append(names, uncounted)
}

// uncounted is the name, which no destination has, under which losses stand that nobody could count: so many of them, not
// readings.
const uncounted = ""

func (l *losses) grow(name string, total *[buffer.Causes]uint64, now time.Time) {
	e := l.by[name]
	before, _ := e.unseen()
	if e.Total == *total {
		return
	}
	first, last := l.when(name, &e.Total, total, now)
	e.Total, l.dirty = *total, true
	for c := range total {
		e.Seen[c] = min(e.Seen[c], total[c]) // a record was taken out of quarantine: the next one is another
	}
	if n, _ := e.unseen(); n <= before {
		return
	}
	if before == 0 {
		e.From, l.urgent = first, true
	}
	if l.looked || e.To.Before(last) {
		e.To = last
	}
	if l.looked { // else it was lost before this process, which the note does not have to know
		e.grown = now
	}
}

// save writes the note when there is something new to keep.
func (l *losses) save() error { return l.write(false) }

// write is save; at once writes also what would wait.
func (l *losses) write(atOnce bool) error {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	if now := l.now(); !l.dirty || !atOnce && !l.urgent && l.goesOn(now) && now.Sub(l.saved) < saveEvery {
		l.mu.Unlock()
		return nil
	}
	note, err := json.Marshal(l.by)
	l.dirty, l.urgent, l.saved = false, false, l.now()
	l.mu.Unlock()
	if err == nil {
		err = l.buf.SetNote(note)
	}
	var second error
	if err == nil {
		second = l.file.write(note)
	}
	if err != nil || second != nil {
		l.mu.Lock()
		l.dirty = true // to be tried again
		l.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("keep what is known of losses: %w", err)
	}
	return nil
}

// goesOn reports whether anything was lost a moment ago. mu is held.
func (l *losses) goesOn(now time.Time) bool {
	for _, e := range l.by {
		if now.Sub(e.grown) < losingFor {
			return true
		}
	}
	return false
}

// absent returns since when each destination that is not in the config is so, of those for which something waits.
func (l *losses) absent(st *buffer.Stats) map[string]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := map[string]time.Time{}
	for i := range st.Destinations {
		d := &st.Destinations[i]
		e := l.by[d.Name]
		switch {
		case e == nil: // it has no account
			continue
		case d.Configured != e.Left.IsZero():
			if e.Left = (time.Time{}); !d.Configured {
				e.Left = l.now()
			}
			l.dirty, l.urgent = true, true
		}
		if !d.Configured {
			since[d.Name] = e.Left
		}
	}
	return since
}

// acknowledge notes that a person has seen all losses, and returns what they were, and why that is not on disk, which is tried again.
func (l *losses) acknowledge(accounts []buffer.Account, who string) (seen []web.Loss, unkept error) {
	seen = l.look(accounts, false)
	l.mu.Lock()
	for _, e := range l.by {
		e.Seen, e.From, e.To, e.grown, e.losing, e.LeftOver = e.Total, time.Time{}, time.Time{}, time.Time{}, time.Time{}, nil
	}
	l.dirty, l.urgent = true, true
	l.mu.Unlock()
	unkept = l.save()
	for i := range seen {
		s := &seen[i]
		l.log.Info("losses acknowledged", "by", who, "destination", s.Destination, "readings", s.Readings, "causes", s.Causes,
			"noticed_from", s.From.UTC().Format(time.RFC3339), "noticed_to", s.To.UTC().Format(time.RFC3339))
	}
	return seen, unkept
}
