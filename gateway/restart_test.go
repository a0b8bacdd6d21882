package gateway

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/config"
)

// TestRestartCosts: a refusal says that a restart loses nothing only where it does not.
func TestRestartCosts(t *testing.T) {
	dir := t.TempDir()
	here, there := filepath.Join(dir, "data"), filepath.Join(dir, "other")
	leaveRecords(t, here, 3)
	leaveRecords(t, there, 1)
	was := config.Config{Gateway: "shop", Buffer: config.Buffer{Path: here, MaxSize: 16 << 20}}
	st := buffer.Stats{Bytes: 9 << 20, Destinations: []buffer.DestinationStats{{Name: "cloud", Backlog: 3}, {Name: "old", Backlog: 7}}}
	for _, c := range []struct {
		name   string
		change func(*config.Config)
		want   []string // nothing: it costs nothing
	}{
		{"memory", func(c *config.Config) { c.Buffer.Memory = 1 << 20 }, nil},
		{"path to a new place", func(c *config.Config) { c.Buffer.Path += "2" }, []string{here, "nothing sends", "7 records", "move all that is in the directory into \"" + here + "2\""}},
		{"path to another store", func(c *config.Config) { c.Buffer.Path = there }, []string{here, "has a store already", "drained first"}},
		{"path in other words", func(c *config.Config) { c.Buffer.Path = dir + "/other/../data" }, nil},
		{"max_size that is enough", func(c *config.Config) { c.Buffer.MaxSize = 12 << 20 }, nil},
		{"max_size", func(c *config.Config) { c.Buffer.MaxSize = 8 << 20 }, []string{"9,437,184 bytes", "oldest records"}},
		{"max_size that may be enough", func(c *config.Config) { c.Buffer.MaxSize = 10 << 20 }, []string{"9,437,184 bytes", "some is kept for state.db", "gives up its oldest records"}},
		{"max_size, drop-newest", func(c *config.Config) { c.Buffer.MaxSize, c.Buffer.WhenFull = 8<<20, config.DropNewest }, []string{"refused"}},
		{"max_age", func(c *config.Config) { c.Buffer.MaxAge = time.Hour }, []string{"7 records wait", "older"}},
		{"gateway", func(c *config.Config) { c.Gateway = "hall" }, []string{"the name that the gateway had"}},
	} {
		cfg := was
		c.change(&cfg)
		got := strings.Join(restartCosts(&was, &cfg, &st), "; ")
		if (got == "") != (c.want == nil) {
			t.Errorf("%s: %q", c.name, got)
		}
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q does not say %q", c.name, got, want)
			}
		}
	}
}

// leaveRecords makes a store in which records wait.
func leaveRecords(t *testing.T, dir string, n int) {
	t.Helper()
	b, err := buffer.Open(dir, buffer.Options{Destinations: []string{"cloud"}, MaxSize: 8 << 20, CommitInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Stream("press", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if _, err := b.Append(s, []byte("x"), 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// backUp writes a backup of a store, in which records wait, too.
func backUp(t *testing.T, from, to string) {
	t.Helper()
	b, err := buffer.Open(from, buffer.Options{Destinations: []string{"cloud"}, MaxSize: 8 << 20, CommitInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := buffer.WriteBackup(to, func(file func(string, int64, io.Reader) error) error { return b.Backup(t.Context(), file) }); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPathIsMoved: a reload with another path is refused with what stays behind, and a start there tells of it.
func TestPathIsMoved(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{device("a")}})
	text, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.Replace(string(text), "path: data", "path: data-2", 1)
	if err := os.WriteFile(b.file, []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = b.g.Reload(t.Context())
	if err == nil || !strings.Contains(err.Error(), "buffer.path cannot change") || !strings.Contains(err.Error(), "nothing sends from there") || strings.Contains(err.Error(), "loses nothing") {
		t.Errorf("refusal: %v", err)
	}
	dir := t.TempDir()
	leaveRecords(t, filepath.Join(dir, "data"), 5)
	leaveRecords(t, filepath.Join(dir, "fresh"), 0)
	backUp(t, filepath.Join(dir, "data"), filepath.Join(dir, "backup"))
	if got := Beside(filepath.Join(dir, "fresh")); len(got) != 0 {
		t.Errorf("beside a store that is there: %q", got)
	}
	log := &safeBuffer{}
	path := filepath.Join(dir, "data-2")
	g := &Gateway{log: slog.New(slog.NewTextHandler(log, nil))}
	g.tellBeside(t.Context(), Beside(path), path)
	if said := log.String(); strings.Count(said, "level=") != 1 || !strings.Contains(said, "records_waiting=5") || !strings.Contains(said, filepath.Join(dir, "data")) {
		t.Errorf("a start at a new path says %q", said)
	}
}
