package gateway

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"millrace/buffer"
)

// TestOptionsOf: of a mount its own options and those of its file system are told apart, also where there are optional fields.
func TestOptionsOf(t *testing.T) {
	const mounts = "29 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n" +
		"43 29 7:0 / /mnt rw,relatime - ext4 /dev/loop0 rw,errors=remount-ro,emergency_ro\n" +
		"44 29 254:0 /srv /srv ro,relatime shared:1 - ext4 /dev/vda rw\n" +
		"4 29 0:5 /broken\n"
	for _, c := range []struct{ id, mount, system string }{
		{"29", "rw", "rw"}, {"43", "relatime", "emergency_ro"}, {"44", "ro", "rw"}, {"4", "", ""}, {"9", "", ""}, {"", "", ""},
	} {
		mount, system := optionsOf(mounts, c.id)
		if c.mount == "" && mount == nil && system == nil {
			continue
		}
		if !slices.Contains(mount, c.mount) || !slices.Contains(system, c.system) || c.id != "43" && slices.Contains(system, emergency) {
			t.Errorf("mount %q: %v and %v", c.id, mount, system)
		}
	}
	if mount, system := optionsAt(t.TempDir() + "/none"); len(mount) == 0 || len(system) == 0 {
		t.Errorf("of a directory that is not there yet: %v and %v", mount, system)
	}
}

// TestAckOnAFullDisk: what is acknowledged while the disk has no room for a further file is kept in state.db, leaves no part of a file, and is kept in its file, too, when there is room again.
func TestAckOnAFullDisk(t *testing.T) {
	mnt := t.TempDir()
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs to mount a small tmpfs: %v", err)
	}
	defer func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) }()
	dir := mnt + "/store"
	b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	l := newLosses(b, dir, slog.New(slog.DiscardHandler))
	if got := l.look(lostFull(70), false); len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	if err := os.WriteFile(mnt+"/junk", make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	seen, unkept := l.acknowledge(lostFull(70), "anna")
	if len(seen) != 1 || unkept != nil {
		t.Errorf("on a full disk: %+v, %v", seen, unkept)
	}
	if body, _ := l.file.read(); len(body) > 0 {
		t.Errorf("the disk is not full: %q", body)
	}
	if again := newLosses(b, dir, slog.New(slog.DiscardHandler)).look(lostFull(70), false); len(again) != 0 {
		t.Errorf("state.db has it not: %+v", again)
	}
	if _, err := os.Stat(dir + "/losses.json.new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a part of a file is left: %v", err)
	}
	if err := errors.Join(os.Remove(mnt+"/junk"), l.save()); err != nil {
		t.Fatal(err)
	}
	if body, err := l.file.read(); err != nil || len(body) == 0 {
		t.Errorf("with room again: %q, %v", body, err)
	}
	if seen, unkept := l.acknowledge(lostFull(75), "anna"); len(seen) != 1 || unkept != nil {
		t.Errorf("with room again: %+v, %v", seen, unkept)
	}
}
