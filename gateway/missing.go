package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"millrace/gateway/poller"
)

// missing is from when on what a device pushed may be missing, by the device's name: the history that it is asked for begins there. A connection that ends
// leaves it to the one that takes its place and, in a small file beside the store's, to the next start. After an end that was not clean there is no
// file; then that is since shortly before the store was last written to.
type missing struct {
	file kept
	mu   sync.Mutex
	by   map[string]time.Time
	last time.Time // of devices that are not in by; zero = they are new
}

// newMissing takes over what the last run left.
func newMissing(dir string, commit time.Duration, log *slog.Logger) *missing {
	m := &missing{file: kept{filepath.Join(dir, "missing.json"), "missing 1", 1 << 20}, by: map[string]time.Time{}}
	if at := lastWritten(dir); !at.IsZero() {
		m.last = at.Add(-commit - poller.Lag)
	}
	body, err := m.file.read()
	if body != nil {
		err = json.Unmarshal(body, &m.by)
	}
	if err != nil {
		m.by = map[string]time.Time{}
		log.Warn("it cannot be read since when devices were not heard; their history is asked for since the last write to the store", "file", m.file.path, "cause", err)
	}
	return m
}

// begin removes the file, which is of the run before.
func (m *missing) begin() { _ = os.Remove(m.file.path) }

// lastWritten returns when a file of the store was last written to, zero when there is none.
func lastWritten(dir string) (last time.Time) {
	files, _ := os.ReadDir(dir) // what cannot be read is the buffer's to say
	for _, f := range files {
		if info, err := f.Info(); err == nil && info.Mode().IsRegular() && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// since returns what a new connection asks when it begins, which is when the one before it has ended.
func (m *missing) since(devices []deviceConfig) func() time.Time {
	otherwise := cmp.Or(m.last, time.Now())
	return func() (from time.Time) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for i := range devices {
			at, known := m.by[devices[i].name]
			if delete(m.by, devices[i].name); !known {
				at = otherwise
			}
			if from.IsZero() || at.Before(from) {
				from = at
			}
		}
		return from
	}
}

// ended notes what a connection leaves.
func (m *missing) ended(c *connection) {
	from := c.poller.Missing()
	if from.IsZero() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range c.devices {
		m.by[c.devices[i].name] = from
	}
}

// save keeps for the next start what there is of the devices that ran last.
func (m *missing) save(last []*connection) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	configured := map[string]bool{}
	for _, c := range last {
		for i := range c.devices {
			configured[c.devices[i].name] = true
		}
	}
	maps.DeleteFunc(m.by, func(name string, _ time.Time) bool { return !configured[name] })
	if len(m.by) == 0 {
		return nil
	}
	body, err := json.Marshal(m.by)
	if err != nil {
		return fmt.Errorf("BUG: %w", err)
	}
	return m.file.write(body)
}
