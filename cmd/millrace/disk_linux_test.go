package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace/gateway"
)

// failedDisk returns where a small ext4 is mounted, and what has it meet an error, after which it takes nothing any more.
func failedDisk(t *testing.T) (mnt string, fail func()) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	mnt = t.TempDir()
	writeFile(t, image, "")
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		t.Skipf("needs mkfs.ext4 (e2fsprogs): %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop,errors=remount-ro", image, mnt).CombinedOutput(); err != nil {
		t.Skipf("needs to mount an ext4 through a loop device: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", mnt).Run() })
	var s unix.Stat_t
	if err := unix.Stat(mnt, &s); err != nil {
		t.Fatal(err)
	}
	device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(s.Dev), unix.Minor(s.Dev)))
	trigger := fmt.Sprintf("/sys/fs/ext4/%s/trigger_fs_error", filepath.Base(device))
	if _, missing := os.Stat(trigger); err != nil || missing != nil {
		t.Skipf("needs a kernel that has an ext4 meet an error: %v, %v", err, missing)
	}
	return mnt, func() {
		t.Helper()
		if err := os.WriteFile(trigger, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			f, err := os.Create(mnt + "/probe")
			if errors.Is(err, unix.EROFS) {
				return
			}
			_ = f.Close()
			if time.Now().After(end) {
				t.Fatal("it still takes files: ", err)
			}
		}
	}
}

// asked runs a command that fails, and returns what it says on both outputs.
func asked(t *testing.T, args ...string) string {
	t.Helper()
	root := newRoot()
	var out bytes.Buffer
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	if err := root.Execute(); err != nil {
		fmt.Fprintln(&out, err)
	}
	return out.String()
}

// says looks at a store with each command that looks at its disk.
func says(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	writeFile(t, file, storeText(dir))
	for _, args := range [][]string{{"buffer", "status"}, {"health"}, {"check"}} {
		name := args[len(args)-1]
		if name == "check" {
			args = append(args, "--config", file)
		} else {
			args = append(args, "--path", dir)
		}
		if said := asked(t, args...); !strings.Contains(said, want[name]) {
			t.Errorf("%s: %s\nwant %q in it", name, said, want[name])
		}
	}
}

// TestFailedDiskIsSeen: of a disk that an error of its file system has stopped, which access(2) does not tell, the commands say that it takes nothing.
func TestFailedDiskIsSeen(t *testing.T) {
	mnt, fail := failedDisk(t)
	fail()
	says(t, mnt+"/store", map[string]string{
		"status": "there is no store: not found; none can be made now: its disk is read-only",
		"health": "its disk is read-only",
		"check":  "run would wait, poll nothing, and start when that is seen to: buffer.path \"" + mnt + "/store\": its disk is read-only",
	})
}

// TestFailedDiskOfAStore is TestFailedDiskIsSeen of a store that is there.
func TestFailedDiskOfAStore(t *testing.T) {
	mnt, fail := failedDisk(t)
	g, err := gateway.New(t.Context(), storeConfig(t, mnt+"/store"), gateway.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	end(t, g)
	fail()
	says(t, mnt+"/store", map[string]string{"status": "health      failing: its disk is read-only", "health": "its disk is read-only", "check": "its disk is read-only"})
}

// TestNoInodes: where bytes are free and no inode is, the commands and the start itself say that files are what is to be removed.
func TestNoInodes(t *testing.T) {
	mnt, _ := smallDisk(t)
	if err := unix.Mount("", mnt, "", unix.MS_REMOUNT, "size=2m,nr_inodes=8"); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		_ = os.WriteFile(fmt.Sprintf("%s/%d", mnt, i), nil, 0o600) // until there is none
	}
	says(t, mnt+"/store", map[string]string{
		"status": "none can be made now: its disk has no inode free for a new file (see df -i)",
		"health": "its disk has no inode free for a new file (see df -i): a gateway that is started may wait for that",
		"check":  "its disk has no inode free for a new file (see df -i)",
	})
	_, err := gateway.New(t.Context(), storeConfig(t, mnt+"/store"), gateway.Options{Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "df -i") || strings.Contains(err.Error(), "free space") {
		t.Errorf("no directory: %v", err)
	}
	if err := errors.Join(os.Remove(mnt+"/0"), os.Mkdir(mnt+"/store", 0o750)); err != nil {
		t.Fatal(err)
	}
	if _, err := gateway.New(t.Context(), storeConfig(t, mnt+"/store"), gateway.Options{Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "df -i") {
		t.Errorf("no lock: %v", err)
	}
}

// TestNewStoreOnBadDisk: check and health say of a disk that a start waits for that it does, and of mounts that it does not wait for that it ends.
func TestNewStoreOnBadDisk(t *testing.T) {
	mnt, readOnly := smallDisk(t)
	readOnly(true)
	says(t, mnt+"/store", map[string]string{"status": "none can be made now: its disk is read-only", "health": "may wait for that", "check": "run would wait, poll nothing, and start"})
	readOnly(false)
	fill(t, mnt+"/junk")
	says(t, mnt+"/store", map[string]string{"status": "none can be made now: its disk is full (0 bytes free)", "health": "may wait for that", "check": "run would wait, poll nothing, and start"})
	if err := os.Remove(mnt + "/junk"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(mnt, mnt, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) }()
	if err := unix.Mount("", mnt, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	const here = "its path is mounted read-only, though its disk is writable"
	says(t, mnt+"/store", map[string]string{"status": "none can be made now: " + here, "health": here + ": with such mounts run does not wait but ends, with exit code 3", "check": "run would not start with it"})
}
