package gateway

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/config"
	"millrace/gateway/web"
)

// leftBed starts gateways, one after the other, on stores in one directory.
type leftBed struct {
	*testing.T
	dir   string
	plant *plant
}

// start assembles a gateway on the store of that name, and returns what it says of it and the words of its log.
func (b *leftBed) start(store string) (g *Gateway, lost *web.State, log *safeBuffer) {
	b.Helper()
	file := filepath.Join(b.dir, "millrace.yaml")
	text := "gateway: shop\nweb: {enabled: false}\nbuffer: {path: " + filepath.Join(b.dir, store) + "}\ndestinations:\n  - {name: cloud, url: \"mqtt://127.0.0.1:1\"}\ndevices:\n" + device("a") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cfg, err := config.Load(file, b.plant.protocols(), config.Options{})
	if err != nil {
		b.Fatal(err)
	}
	log = &safeBuffer{}
	if g, err = New(b.Context(), cfg, Options{Version: "test", Log: slog.New(slog.NewTextHandler(log, nil))}); err != nil {
		b.Fatal(err)
	}
	return g, lostOf(g), log
}

// lostOf is what is said of losses of the store.
func lostOf(g *Gateway) *web.State {
	for _, s := range g.state().States {
		if s.Kind == "store" && s.State == web.StateLost {
			return &s
		}
	}
	return nil
}

func (b *leftBed) close(g *Gateway) {
	b.Helper()
	if err := errors.Join(g.losses.write(true), g.buf.Close()); err != nil {
		b.Fatal(err)
	}
}

// removeAll removes the files of these patterns.
func removeAll(patterns ...string) (err error) {
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern)
		for _, file := range found {
			err = errors.Join(err, os.Remove(file))
		}
	}
	return err
}

// TestLostStoreStands: that the store is a backup, or that state.db or all of it was lost, stands as lost data over restarts until a person acknowledges it. A kill
// does not, nor a new store, nor what a first start leaves that failed.
func TestLostStoreStands(t *testing.T) {
	b := &leftBed{t, t.TempDir(), newPlant()}
	g, lost, _ := b.start("first")
	if lost != nil {
		t.Errorf("a new store: %v", lost)
	}
	first := filepath.Join(b.dir, "first")
	at := func(name, file string) string { return filepath.Join(b.dir, name, file) }
	clone := func(name string) {
		if err := os.CopyFS(filepath.Join(b.dir, name), os.DirFS(first)); err != nil {
			t.Fatal(err)
		}
	}
	g.missing.runs(g.running.connections)
	s, err := g.buf.Stream("a", nil)
	if err == nil {
		_, err = g.buf.Append(s, []byte("x"), 1, time.Now().UnixMicro())
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		make func(name string) error
		says string // "" = nothing is lost
	}{
		"killed": {func(name string) error { clone(name); return nil }, ""},
		"restored": {func(name string) error {
			return buffer.WriteBackup(filepath.Join(b.dir, name), func(file func(string, int64, io.Reader) error) error { return g.buf.Backup(t.Context(), file) })
		}, "a backup that was put in the store's place: what came from 20"},
		"state gone": {func(name string) error { clone(name); return os.Remove(at(name, "state.db")) }, "state.db of the store being lost or damaged at the start at 20"},
		"all gone": {func(name string) error {
			clone(name)
			return removeAll(at(name, "seg-*"), at(name, "state.db"), at(name, "promised"))
		}, "there was a store here, and nobody knows"},
		"failed": {func(name string) error {
			return errors.Join(os.Mkdir(filepath.Join(b.dir, name), 0o750), os.WriteFile(at(name, "lock"), []byte("7\n"), 0o600), os.Mkdir(at(name, "lost+found"), 0o700))
		}, ""},
	} {
		if err := c.make(name); err != nil {
			t.Fatal(name, err)
		}
		for i := range 3 {
			g, lost, log := b.start(name)
			switch {
			case (lost != nil) != (c.says != ""), lost != nil && !strings.Contains(lost.Reason, c.says):
				t.Errorf("%s, start %d: %v, want %q", name, i, lost, c.says)
			case lost != nil && (lost.Level() != web.LevelBad || !strings.Contains(lost.Do, "millrace ack")):
				t.Errorf("%s: %+v", name, lost)
			}
			if c.says != "" && i == 0 && !strings.Contains(log.String(), BeforeText(g.buf.Stats().Before)) {
				t.Errorf("%s: the log says %s", name, log)
			}
			if i == 2 && c.says != "" {
				seen, err := g.Ack("anna")
				if err != nil || len(seen.Losses) != 1 || lostOf(g) != nil {
					t.Errorf("%s: %+v, %v; then %v", name, seen, err, lostOf(g))
				}
			}
			b.close(g)
		}
		g, lost, _ := b.start(name)
		if lost != nil {
			t.Errorf("%s, acknowledged: %v", name, lost)
		}
		b.close(g)
	}
	b.close(g)
}

// TestGoneStoreIsTold: of a store whose files are gone a gap message tells each device, without a beginning.
func TestGoneStoreIsTold(t *testing.T) {
	b := &leftBed{t, t.TempDir(), newPlant()}
	if err := errors.Join(os.Mkdir(filepath.Join(b.dir, "gone"), 0o750), os.WriteFile(filepath.Join(b.dir, "gone", missingFile), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	g, _, _ := b.start("gone")
	defer b.close(g)
	if n := g.buf.Stats().Destinations[0].Untold; n != 1 {
		t.Errorf("%d losses are told, want that of device a", n)
	}
}

// TestStoreLossesAreOne: what the store as a whole has lost and damages to it are one state: two of one kind, name and state would be one series of metrics twice.
func TestStoreLossesAreOne(t *testing.T) {
	dir := t.TempDir()
	buf, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Close()
	l := newLosses(buf, dir, slog.New(slog.DiscardHandler))
	now := judged
	l.now, l.unknown = func() time.Time { return now }, func() uint64 { return 2 }
	l.noteLeft(buffer.Left{Restored: true, Unclean: true}, judged.Add(-time.Hour))
	l.noteLeft(buffer.Left{Unclean: true}, judged)
	now = now.Add(time.Minute)
	l.noteLeft(buffer.Left{Restored: true}, time.Time{})
	l.noteLeft(buffer.Left{Unknown: true, Gone: true}, time.Time{})
	said := l.look(nil, false)
	const want = "2 damages to the store's files; and by a backup that was put in the store's place: what came from a time that nobody knows until the start at 2026"
	if len(said) != 1 || said[0].Readings != 2 || !strings.HasPrefix(said[0].Causes, want) || !strings.Contains(said[0].Causes, "; and by the store's files being gone") || !said[0].From.Equal(judged) || !said[0].To.Equal(now) {
		t.Errorf("%+v", said)
	}
}

// TestLostStoreOutlastsAKill: what stands is on disk before the gap messages that tell of it are.
func TestLostStoreOutlastsAKill(t *testing.T) {
	b := &leftBed{t, t.TempDir(), newPlant()}
	g, _, _ := b.start("first")
	if err := buffer.WriteBackup(filepath.Join(b.dir, "restored"), func(file func(string, int64, io.Reader) error) error { return g.buf.Backup(t.Context(), file) }); err != nil {
		t.Fatal(err)
	}
	b.close(g)
	restored, _, _ := b.start("restored")
	if _, err := restored.buf.AddDestination("other", buffer.StartNow); err != nil { // which commits, with the gap messages
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(b.dir, "killed"), os.DirFS(filepath.Join(b.dir, "restored"))); err != nil {
		t.Fatal(err)
	}
	killed, lost, _ := b.start("killed")
	if before := killed.buf.Stats().Before; lost == nil || before != buffer.BeforeUnclean {
		t.Errorf("after a kill: %v, the process before: %q", lost, before)
	}
	b.close(killed)
	b.close(restored)
}
