package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"millrace/buffer"
)

// TestCheckSeesWhereTheStoreIs: a store that cannot be made is found by check, and run says why in the same words.
func TestCheckSeesWhereTheStoreIs(t *testing.T) {
	dir := t.TempDir()
	checked := func(path string) (code int, out string) {
		file := filepath.Join(dir, "millrace.yaml")
		writeFile(t, file, fmt.Sprintf("gateway: g\nbuffer: {path: %q}\ndestinations: [{name: cloud, url: \"mqtt://127.0.0.1\"}]\ndevices:\n"+
			"  - {name: d, driver: modbus, url: \"tcp://127.0.0.1:1\", groups: [{name: g, interval: 1s, tags: [{name: a, address: \"holding:1\"}]}]}\n", path))
		return millrace("check", "--config", file)
	}
	opened := func(path, want, not string) {
		t.Helper()
		b, err := buffer.Open(path, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
		if err == nil {
			_ = b.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), not) {
			t.Errorf("open %s: %v", path, err)
		}
	}
	if code, out := checked(dir + "/store"); code != 0 || strings.Contains(out, "WARNING") {
		t.Errorf("a place that is well: exit %d\n%s", code, out)
	}
	if code, out := checked(dir + "/no/store"); code != 0 || !strings.Contains(out, "WARNING") || !strings.Contains(out, "create its parent directory") {
		t.Errorf("no parent: exit %d\n%s", code, out)
	}
	opened(dir+"/no/store", "create its parent directory", "writable")
	writeFile(t, dir+"/file", "")
	if code, out := checked(dir + "/file/store"); code != exitFailed || strings.Contains(out, "\nok\n") {
		t.Errorf("below a file: exit %d\n%s", code, out)
	}
	if code, _ := checked(dir + "/file"); code != exitFailed {
		t.Errorf("a file: exit %d", code)
	}
	opened(dir+"/file/store", "not a directory", "create its parent")

	ro := filepath.Join(dir, "ro")
	if err := os.Mkdir(ro, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", ro, "tmpfs", unix.MS_RDONLY, "size=1m"); err != nil {
		t.Skipf("needs to mount a file system: %v", err)
	}
	defer func() { _ = unix.Unmount(ro, unix.MNT_DETACH) }()
	for _, path := range []string{ro, ro + "/store"} {
		if code, out := checked(path); code != exitFailed || strings.Contains(out, "\nok\n") {
			t.Errorf("%s is read-only: exit %d\n%s", path, code, out)
		}
	}
	opened(ro+"/store", "read-only file system", "create its parent")
}
