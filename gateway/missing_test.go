package gateway

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/gateway/poller"
)

// TestMissingOverARestart: since when a device was not heard goes over a clean stop, once; without it, or with a damaged file, it is since the last
// write to the store; and a device that a reload adds has missed nothing.
func TestMissingOverARestart(t *testing.T) {
	dir, log := t.TempDir(), new(strings.Builder)
	logger := slog.New(slog.NewTextHandler(log, nil))
	if m := newMissing(dir, time.Second, logger); !m.last.IsZero() {
		t.Errorf("an empty store was last written to at %v", m.last)
	}
	written := time.Now().Add(-time.Hour).Truncate(time.Second)
	store := filepath.Join(dir, "state.db")
	if err := os.WriteFile(store, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(store, written, written); err != nil {
		t.Fatal(err)
	}
	since := func(m *missing, name string) time.Time { return m.since([]deviceConfig{{name: name}})() }
	before := written.Add(-time.Second - poller.Lag)
	m := newMissing(dir, time.Second, logger)
	if got := since(m, "a"); !got.Equal(before) {
		t.Errorf("after a kill %v, want %v", got, before)
	}
	m.last = time.Time{}
	if got := since(m, "new"); time.Since(got) > time.Minute {
		t.Errorf("a device that is new misses something since %v", got)
	}
	stopped := time.Now().Add(-30 * time.Minute)
	m.by = map[string]time.Time{"a": stopped, "gone": stopped}
	if err := m.save([]*connection{{devices: []deviceConfig{{name: "a"}, {name: "b"}}}}); err != nil {
		t.Fatal(err)
	}
	m = newMissing(dir, time.Second, logger)
	if got := since(m, "a"); !got.Equal(stopped) {
		t.Errorf("after a stop %v, want %v", got, stopped)
	}
	if got := since(m, "gone"); got.Equal(stopped) {
		t.Error("a device that was in the config no more is kept")
	}
	if got := since(newMissing(dir, time.Second, logger), "a"); !got.Equal(stopped) {
		t.Error("a start that failed has used the file up")
	}
	m.begin()
	if got := since(newMissing(dir, time.Second, logger), "a"); got.Equal(stopped) {
		t.Error("the file holds for another run")
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", log)
	}
	sealed := func(body string) string { return m.file.head([]byte(body)) + "\n" + body }
	for _, bad := range []string{"", "{", `{"a":"2026-01-02T03:04:05Z"}`, sealed("{"), sealed(`{"a":1}`), sealed(strings.Repeat(" ", m.file.most))} {
		if err := os.WriteFile(m.file.path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		log.Reset()
		if got := since(newMissing(dir, time.Second, logger), "a"); got.IsZero() || !strings.Contains(log.String(), "cannot be read") {
			t.Errorf("%.20q: %v, log %s", bad, got, log)
		}
	}
}
