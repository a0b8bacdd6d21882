package gateway

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"millrace/buffer"
	"millrace/gateway/config"
	"millrace/gateway/web"
)

// needsRestart returns an error that names everything that cannot be changed while the gateway runs, and what a restart with it
// costs. The store takes its options when it is opened; the gateway's name is part of each record.
func (g *Gateway) needsRestart(old, cfg *config.Config) error {
	keys := old.NeedRestart(cfg)
	if old.Log.Level != cfg.Log.Level && g.o.SetLogLevel == nil {
		keys = append(keys, "log.level")
	}
	if len(keys) == 0 {
		return nil
	}
	names := strings.Join(keys, ", ")
	st := g.buf.Stats()
	if costs := restartCosts(old, cfg, &st); len(costs) > 0 {
		return fmt.Errorf("reload config: %s cannot change while the gateway runs. Before you restart it: %s. Or take this change back", names, strings.Join(costs, "; "))
	}
	return fmt.Errorf("reload config: %s cannot change while the gateway runs; restart it, which loses nothing of what is in the store, or take this change back", names)
}

// restartCosts says what becomes of what the store keeps when the gateway is started again with cfg.
func restartCosts(old, cfg *config.Config, st *buffer.Stats) (costs []string) {
	waiting := st.Waiting()
	was, will := &old.Buffer, &cfg.Buffer
	moved := !samePlace(was.Path, will.Path)
	if moved {
		costs = append(costs, fmt.Sprintf("the store stays in %q, and nothing sends from there what waits in it, now %s, nor tells of it; "+moving(was.Path, will.Path),
			was.Path, web.Count(waiting, "record")))
	}
	if !moved && will.MaxSize < was.MaxSize && st.Bytes > surelyFits(will.MaxSize) {
		given := "the start gives up its oldest records until it fits"
		if will.WhenFull == config.DropNewest {
			given = "new readings are refused until so much of it is delivered"
		}
		more := "more than the new buffer.max_size:"
		if st.Bytes <= will.MaxSize {
			more = "and of the new buffer.max_size some is kept for state.db and the next commit; if it has no room in the rest,"
		}
		costs = append(costs, fmt.Sprintf("the store takes %s bytes, %s %s", web.Thousands(uint64(st.Bytes)), more, given))
	}
	if !moved && will.MaxAge > 0 && (was.MaxAge == 0 || will.MaxAge < was.MaxAge) && waiting > 0 {
		costs = append(costs, fmt.Sprintf("%s, and those older than the new buffer.max_age are given up then", waits(waiting)))
	}
	if !moved && old.Gateway != cfg.Gateway && waiting > 0 {
		costs = append(costs, fmt.Sprintf("%s, and are sent under the name that the gateway had when it took them", waits(waiting)))
	}
	return costs
}

// surelyFits is how large a store may be that fits under a max_size whatever is kept of that.
func surelyFits(maxSize int64) int64 { return maxSize / 4 * 3 }

func waits(n uint64) string {
	if n == 1 {
		return "1 record waits"
	}
	return web.Count(n, "record") + " wait"
}

// moving says how a store comes to another place without losing what waits in it.
func moving(from, to string) string {
	if hasStore(to) {
		return fmt.Sprintf("%q has a store already, so let this one be drained first", to)
	}
	return fmt.Sprintf("stop the gateway, move all that is in the directory into %q and start it, or let it be drained first", to)
}

// hasStore reports whether a store is in a directory.
func hasStore(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "state.db"))
	return err == nil
}

// samePlace reports whether two paths lead to one directory.
func samePlace(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	if err == nil && err2 == nil {
		return os.SameFile(x, y)
	}
	x1, err := filepath.Abs(a)
	y1, err2 := filepath.Abs(b)
	return err == nil && err2 == nil && x1 == y1
}

// Beside looks through so many names at most, and gives so many stores.
const (
	maxLooked = 256
	maxBeside = 8
)

// Beside returns the directories with a store that stand beside where a new one would be made, or above it: what waits there nothing sends
// when buffer.path was changed. None when there is a store at the path.
func Beside(path string) (dirs []string) {
	if hasStore(path) {
		return nil
	}
	return besides(path)
}

// besides is Beside of a path at which the store may be new.
func besides(path string) (dirs []string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	above := filepath.Dir(path)
	f, err := os.Open(above)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxLooked) // as far as they can be read
	slices.Sort(names)
	for _, name := range names {
		if dir := filepath.Join(above, name); dir != path && hasStore(dir) {
			dirs = append(dirs, dir)
		}
	}
	if hasStore(above) {
		dirs = append(dirs, above)
	}
	return dirs[:min(len(dirs), maxBeside)]
}

// lookBeside tells of what waits in stores beside a new one. Nothing waits for it but those: a directory there may be another file system, which hangs, and is left
// alone then when ctx ends.
func (g *Gateway) lookBeside(ctx context.Context) error {
	if left := g.buf.Left(); !left.New && !left.Gone {
		return nil
	}
	path, done := g.config().Buffer.Path, make(chan struct{})
	go func() {
		defer close(done)
		g.tellBeside(ctx, besides(path), path)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return nil
}

// tellBeside warns of what waits in stores beside a new one, which nobody has in use.
func (g *Gateway) tellBeside(ctx context.Context, dirs []string, path string) {
	for _, dir := range dirs {
		if ctx.Err() != nil {
			return
		}
		if buffer.Holder(dir) != "" {
			continue // another gateway's
		}
		s, err := buffer.OpenReadOnly(dir)
		if err != nil {
			continue // it may be anything
		}
		st := s.Stats()
		s.Close()
		if st.Before == buffer.BeforeRestored {
			continue // a backup: it is kept, not forgotten
		}
		if n := st.Waiting(); n > 0 {
			g.log.Warn("the store is new, and beside it is one that no gateway has in use: what waits there nothing sends; if buffer.path was changed, set it back and restart until that is delivered, then change it",
				"here", path, "there", dir, "records_waiting", n)
		}
	}
}
