package buffer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// awayPatience is how long a directory that was moved away, or whose disk is not mounted any more, is waited for before it is made anew. Who puts it
// back until then has lost nothing.
const awayPatience = 30 * time.Second

// awaited returns why the directory is not made anew yet, nil when it is to be: its files were removed, it has been away for long, or memory is half full
// of what is to be written. commitMu is held.
func (b *Buffer) awaited() error {
	if !linked(b.lock) {
		return nil
	}
	if b.awaySince.IsZero() {
		b.awaySince = time.Now()
		b.log.Error("the store's directory was moved away; records stay in memory until it is back, or is made anew", "dir", b.dir, "made_anew_after", b.awayPatience)
	}
	b.mu.Lock()
	over := b.dirty() > b.o.TailBytes/2 || time.Since(b.awaySince) >= b.awayPatience
	b.mu.Unlock()
	if over {
		return nil
	}
	return fmt.Errorf("directory %q was moved away: put it back; records stay in memory; it is made anew at %s, or when memory is half full, and what only its files have is lost then",
		b.dir, b.awaySince.Add(b.awayPatience).Format(time.TimeOnly))
}

// isBack notes that the directory stands under its name, as it was. commitMu is held.
func (b *Buffer) isBack() {
	if b.awaySince.IsZero() {
		return
	}
	b.log.Info("the store's directory is back, as it was", "dir", b.dir, "after", time.Since(b.awaySince).Round(time.Second))
	b.awaySince = time.Time{}
	b.mu.Lock()
	b.notify()
	b.mu.Unlock()
}

// whoseIsIt finds out whose store stands in the directory, of which lock was taken: nobody's, or back: this one as this process had left it when it was
// taken away. An error says that it is not ours to change. commitMu is held.
func (b *Buffer) whoseIsIt(lock *os.File) (back bool, err error) {
	v := b.hear()
	data, err := readState(filepath.Join(b.dir, stateName))
	none := errors.Is(err, os.ErrNotExist)
	if err != nil {
		data = &stateData{}
	}
	switch store := v.elect(data.store); {
	case store == 0 && none:
		return false, nil
	case store == b.store && (none || data.store != b.store || data.epoch == b.epoch.n):
		return !named(b.dirInfo, b.dir), nil // else files of it are gone, and it is not
	case store == b.store: // what the other process took only Open can take up
		gen := uint64(0)
		if own, err := parseCheckpoint(data.ckpt, b.decoder); err == nil {
			gen = own.gen
		}
		if readSeen(lock).gen <= gen {
			b.wentOn(lock, gen)
		}
		return false, fmt.Errorf("directory %q holds this gateway's store as another process had it open: restart the gateway, and it goes on there; records stay in memory, and are lost with it unless they are delivered", b.dir)
	}
	return false, fmt.Errorf("directory %q holds another store now; records stay in memory: give this gateway its own directory back, or stop it", b.dir)
}

// moveBackIn makes room for what memory knows: the segments that stand there were told as lost, or needed by nobody, when the directory was taken away,
// and their numbers may have been written once more. commitMu is held.
func (b *Buffer) moveBackIn() {
	count := 0
	for _, suffix := range []string{"", spareSuffix} {
		names, _ := filepath.Glob(filepath.Join(b.dir, "seg-*.db"+suffix)) // the pattern is sound
		for _, name := range names {
			b.renameAside(name, strings.TrimSuffix(name, suffix))
			count++
		}
	}
	_ = b.fs.remove(filepath.Join(b.dir, restoredName)) // or a copy passes for what it is not any more
	b.state.failed = true                               // to be written anew
	b.measureAside()
	b.log.Error("the store's directory is back that was taken away; what memory has is written there", "dir", b.dir, "segments_set_aside", count)
	if count > 0 {
		b.noteDamage(Damage{File: filepath.Base(b.dir), Reason: fmt.Sprintf("taken away while in use, and put back: %d segments in it are set aside; what was needed of them was told as lost when they were gone", count)})
	}
}

// wentOn notes in the lock of a directory that its store goes on elsewhere: whoever opens it next finds its state.db, of the generation gen at most, older than what
// was here last, and tells that what came since may be missing (Left.Older). commitMu is held.
func (b *Buffer) wentOn(lock *os.File, gen uint64) {
	b.mu.Lock()
	gen = max(gen, b.gen) + 1
	b.mu.Unlock()
	writeLock(lock, seen{b.store, gen})
}

// settleIn writes what memory knows into a directory that was made or taken again, and takes back what wentOn has noted there. commitMu is held.
func (b *Buffer) settleIn() {
	if !b.movedIn {
		return
	}
	d := b.checkpointNow()
	if b.saveCheckpoint(d) == nil { // else at the next turn; Stats has the error
		writeLock(b.lock, seen{b.store, d.gen})
		b.movedIn = false
	}
}

// Holds reports whether the directory under the store's name is this process's own.
func (b *Buffer) Holds() bool {
	b.mu.Lock()
	lock, taken := b.lockInfo, b.st.takenErr
	b.mu.Unlock()
	return taken == nil && named(lock, filepath.Join(b.dir, lockName))
}
