package gateway

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"millrace/buffer"
	"millrace/gateway/poller"
)

// missing is from when on what a device pushed may be missing, by the device's name: a gap is told, and its history asked for, from there. A connection that
// ends leaves it to the one that takes its place and, in a small file beside the store's, to the next start. An end that was not clean leaves nothing but
// the names; then that is since shortly before the moment until which the store says itself that all it had taken is safe, and never later than that: what
// came after it may be lost. No file's time says anything.
type missing struct {
	file   kept
	log    *slog.Logger
	settle time.Duration // after so much of a run all that the one before has left is told and on disk
	mu     sync.Mutex
	by     map[string]time.Time
	last   time.Time       // of known devices that are not in by; zero = the gateway runs, or the store is new
	fresh  map[string]bool // devices without any tag of which nothing was missing when their connection began
	before unheard         // what the run before has left; nothing when that is settled
	began  bool
	ran    time.Time // since when; zero = not yet, or settled

	open           map[string]time.Time // since when something is missing of devices of this run that is not told or read to its end yet, as the file says; nil = save has written it
	was            map[string]time.Time // the same at wasAt
	wasAt, written time.Time
	changed        bool // open is not what the file says
}

// unheard is what the file holds.
type unheard struct {
	At     map[string]time.Time `json:"at,omitempty"`
	Others time.Time            `json:"others,omitzero"` // of known devices that are not in At; zero = what the store says
	Known  []string             `json:"known"`           // devices that are to push, in order; all others are new. Nil = it does not say
}

// Why changes may be missing that nobody heard, in words.
const (
	didNotRun  = "the gateway did not run, or had not connected yet"
	reloaded   = "the device's config was reloaded, and it was not connected again yet"
	reselected = "its browse rule selected other tags, and it was not connected again yet"
)

// newMissing takes over what the last run left.
func newMissing(dir string, commit time.Duration, left buffer.Left, clockUnset bool, log *slog.Logger) *missing {
	m := &missing{file: kept{path: filepath.Join(dir, missingFile), kind: "missing 2", most: 4 << 20}, log: log, settle: 10*time.Second + 2*commit, fresh: map[string]bool{}, open: map[string]time.Time{}}
	store := safeUntil(left, time.Now(), clockUnset)
	if m.last = store; store.After(poller.NotKnown()) {
		m.last = store.Add(-commit - poller.Lag)
	}
	body, err := m.file.read()
	if body != nil {
		err = json.Unmarshal(body, &m.before)
	}
	if err != nil {
		m.before = unheard{}
		log.Warn("it cannot be read since when devices were not heard; a gap is told, and their history asked for, since the store was safe last", "file", m.file.path, "cause", err)
	}
	if m.before.At == nil {
		m.before.At = map[string]time.Time{}
	}
	if left.Unclean || left.Unknown || !left.Until.IsZero() { // else it is the stop of an earlier build, which wrote all
		for name, at := range m.before.At {
			m.before.At[name] = earlier(at, store)
		}
	}
	if !m.before.Others.IsZero() {
		m.last = earlier(m.before.Others, m.last)
	}
	m.by, m.before.Others = maps.Clone(m.before.At), m.last
	return m
}

// safeUntil returns until when all that was taken is safe, by what the store says: what it says of a time to come is not believed, unless today's clock is not
// set. poller.NotKnown when that leaves nothing; zero for a new store, in which nothing can be missing.
func safeUntil(left buffer.Left, now time.Time, clockUnset bool) (until time.Time) {
	if left.New {
		return time.Time{}
	}
	until = poller.NotKnown()
	for _, at := range []time.Time{left.Until, left.Newest} { // neither is later than the truth
		if at.After(until) && (clockUnset || !at.After(now)) {
			until = at
		}
	}
	return until
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// opened keeps until when the store was safe before it was opened: a start may follow one that fails.
func (m *missing) opened() {
	if !m.last.IsZero() {
		m.keep()
	}
}

// runs keeps which devices run from now on, beside what the run before has left.
func (m *missing) runs(connections []*connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.began {
		m.began, m.last, m.ran = true, time.Time{}, time.Now()
	}
	known := pushingIn(connections)
	if m.before.Known == nil || !slices.Equal(known, m.before.Known) {
		m.before.Known = known
		m.keep()
	}
}

// settled gives up what the run before has left, when all of it has been told and written. healthy reports whether the store is written without errors.
func (m *missing) settled(healthy func() bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ran.IsZero() || time.Since(m.ran) < m.settle || !healthy() {
		return
	}
	m.ran, m.before = time.Time{}, unheard{Known: m.before.Known}
	m.keep()
}

// Bounds of how the file follows outages and history that are not over: it wears the flash. A shorter one is within poller.Lag before the moment until which the
// store is safe, from where a gap is told of every device.
const (
	rewrite = 10 * time.Second // between two writes
	lasting = poller.Lag - rewrite - lookEvery
	advance = time.Minute // of history read, that is worth a write
)

// unfilled returns since when something is missing of the devices that push.
func (m *missing) unfilled(connections []*connection) map[string]time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	since := map[string]time.Time{}
	for _, c := range connections {
		for i := range c.devices {
			if at := c.poller.Unfilled(i); !at.IsZero() && !m.fresh[c.devices[i].name] {
				since[c.devices[i].name] = at
			}
		}
	}
	return since
}

// note keeps, for a start after a kill, since when something is missing that will be told or read yet. That an outage has ended, or how far its history was read, counts
// when the store has been written since.
func (m *missing) note(is map[string]time.Time, now time.Time, healthy func() bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.open == nil:
		return
	case m.was == nil:
		m.was, m.wasAt = is, now
	case now.Sub(m.wasAt) >= m.settle && healthy():
		for name, at := range m.open {
			if later, lasts := m.was[name]; !lasts {
				delete(m.open, name)
				m.changed = true
			} else if later.Sub(at) >= advance {
				m.open[name], m.changed = later, true
			}
		}
		m.was, m.wasAt = is, now
	}
	for name, at := range is {
		if noted, listed := m.open[name]; now.Sub(at) >= lasting && (!listed || at.Before(noted)) {
			m.open[name], m.was[name], m.changed = at, at, true
		}
	}
	if m.changed && now.Sub(m.written) >= rewrite {
		m.written = now
		m.keep()
	}
}

// pushingIn returns the devices that are to push something, in order; never nil.
func pushingIn(connections []*connection) []string {
	names := []string{}
	for _, c := range connections {
		for i := range c.devices {
			if c.poller.Pushes(i) && !c.devices[i].empty {
				names = append(names, c.devices[i].name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// tells returns whether a connection that begins now tells of what was missed of a device before the start.
func (m *missing) tells(pushing []string) func(device string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return func(device string) bool {
		_, pushes := slices.BinarySearch(pushing, device)
		_, ran := slices.BinarySearch(m.before.Known, device)
		_, listed := m.before.At[device]
		return pushes && (listed || ran || m.before.Known == nil)
	}
}

// since returns what a new connection asks when it begins, which is when the one before it has ended; why says for what that ended in this run. Of a device that is new nothing is missing.
func (m *missing) since(devices []deviceConfig, why string) func(device int) (time.Time, string) {
	m.mu.Lock()
	last, now, known := m.last, time.Now(), m.before.Known
	m.mu.Unlock()
	return func(device int) (time.Time, string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		name := devices[device].name
		at, listed := m.by[name]
		delete(m.by, name)
		switch _, ran := slices.BinarySearch(known, name); {
		case listed && last.IsZero():
			return at, why
		case listed:
			return at, didNotRun
		case !last.IsZero() && (ran || known == nil):
			return last, didNotRun
		}
		if devices[device].empty {
			m.fresh[name] = true
		}
		return now, ""
	}
}

// ended notes what a connection leaves: nothing of a device that was new and has had no tag.
func (m *missing) ended(c *connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range c.devices {
		name := c.devices[i].name
		if from := c.poller.Missing(i); !from.IsZero() && !m.fresh[name] {
			m.by[name] = from
		}
		delete(m.fresh, name)
	}
}

// save keeps for the next start what there is of the devices that ran last.
func (m *missing) save(last []*connection) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := pushingIn(last)
	maps.DeleteFunc(m.by, func(name string, _ time.Time) bool { return !slices.Contains(known, name) })
	m.ran, m.open = time.Time{}, nil // what a stop writes is the last word
	return m.write(unheard{At: m.by, Known: known})
}

// keep writes the file for a start after an end that is not clean. mu is held, unless nothing runs yet.
func (m *missing) keep() {
	u := m.before
	u.At = maps.Clone(m.open)
	for name, at := range m.before.At {
		if noted, listed := u.At[name]; listed {
			at = earlier(at, noted)
		}
		u.At[name] = at
	}
	if err := m.write(u); err != nil {
		m.log.Warn("it cannot be kept since when devices were not heard; after a kill the gap that is told may be too short", "cause", err)
		return
	}
	m.changed = false
}

func (m *missing) write(u unheard) error {
	body, err := json.Marshal(u)
	if err == nil && len(body) > m.file.room() {
		body, err = json.Marshal(unheard{Others: u.Others}) // all are known then
	}
	if err != nil {
		return fmt.Errorf("BUG: %w", err)
	}
	return m.file.write(body)
}
