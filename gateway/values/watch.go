package values

import (
	"context"
	"sync"
	"sync/atomic"

	"millrace/drivers/telemetry"
)

// Want says which tags a watcher wants to see.
type Want struct {
	Device, Tag string // "" = all
	Bad         bool   // only readings that are not good
}

// Change is what a watcher gets: the newest of each tag that changed, and how many older ones it has missed.
type Change struct {
	Entries []Entry
	Missed  uint64 // readings that a newer one of the same tag replaced before the watcher took them, since it began
}

// maxWatchers bounds the watchers of a table.
const maxWatchers = 64

// watchers are told of each Put. One that does not keep up gets the newest reading of each tag, and never holds up a Put.
type watchers struct {
	any  atomic.Int32
	mu   sync.Mutex
	list []*watcher
}

type watcher struct {
	want    Want
	ready   chan struct{} // capacity 1
	mu      sync.Mutex
	pending map[place]struct{}
	order   []place
	missed  uint64
}

// place is one tag.
type place struct {
	group *Group
	tag   uint32
}

// Watch returns a channel of changes that is closed when ctx ends, or at once when too many watch. Readings that are there
// already are not told.
func (t *Table) Watch(ctx context.Context, want Want) <-chan Change {
	out := make(chan Change)
	w := &watcher{want: want, ready: make(chan struct{}, 1), pending: map[place]struct{}{}}
	if !t.watch.add(w) {
		close(out)
		return out
	}
	go func() {
		defer close(out)
		defer t.watch.remove(w)
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.ready:
			}
			select {
			case <-ctx.Done():
				return
			case out <- w.take():
			}
		}
	}()
	return out
}

func (ws *watchers) add(w *watcher) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if len(ws.list) >= maxWatchers {
		return false
	}
	ws.list = append(ws.list, w)
	ws.any.Add(1)
	return true
}

func (ws *watchers) remove(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for i, o := range ws.list {
		if o == w {
			ws.list = append(ws.list[:i:i], ws.list[i+1:]...)
			ws.any.Add(-1)
			return
		}
	}
}

// changed tells the watchers of a Put.
func (ws *watchers) changed(g *Group, _ int64, readings []telemetry.Reading) {
	if ws.any.Load() == 0 {
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.list {
		w.note(g, readings)
	}
}

// note remembers which tags changed: at most each tag once.
func (w *watcher) note(g *Group, readings []telemetry.Reading) {
	if w.want.Device != "" && w.want.Device != g.schema.Device {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range readings {
		r := &readings[i]
		if int(r.Tag) >= len(g.schema.Tags) || w.want.Tag != "" && w.want.Tag != g.schema.Tags[r.Tag].Name {
			continue
		}
		p := place{g, r.Tag}
		if _, waits := w.pending[p]; waits {
			w.missed++
			continue
		}
		if w.want.Bad && r.Quality == telemetry.Good {
			continue
		}
		w.pending[p] = struct{}{}
		w.order = append(w.order, p)
	}
	if len(w.order) > 0 {
		select {
		case w.ready <- struct{}{}:
		default:
		}
	}
}

// take returns what has changed since the last call.
func (w *watcher) take() Change {
	w.mu.Lock()
	order, missed := w.order, w.missed
	w.order = nil
	clear(w.pending)
	w.mu.Unlock()
	c := Change{Missed: missed, Entries: make([]Entry, 0, len(order))}
	for _, p := range order {
		p.group.mu.Lock()
		e := p.group.entry(int(p.tag))
		p.group.mu.Unlock()
		if w.want.Bad && e.Reading.Quality == telemetry.Good { // it recovered meanwhile
			continue
		}
		c.Entries = append(c.Entries, e)
	}
	return c
}
