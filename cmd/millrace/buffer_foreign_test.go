package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBufferOfMixedStores: a stopped store into which another one's file has come, or of which a segment is missing: status, verify and export say so,
// verify and export with exit 1.
func TestBufferOfMixedStores(t *testing.T) {
	other := makeStore(t, 50)
	for what, c := range map[string]struct {
		spoil func(t *testing.T, dir, segment string)
		says  string
	}{
		"state.db":        {func(t *testing.T, dir, _ string) { writeFile(t, dir+"/state.db", readFile(t, other+"/state.db")) }, "state.db is of another store"},
		"segment":         {func(t *testing.T, _, segment string) { writeFile(t, segment, readFile(t, firstSegment(t, other))) }, "segment of another store"},
		"segment missing": {func(t *testing.T, _, segment string) { _ = os.Remove(segment) }, "missing: records 1 to"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := makeStore(t, 100)
			c.spoil(t, dir, firstSegment(t, dir))
			before := listDir(t, dir)
			if code, out := millrace("buffer", "status", "--path", dir); code != 0 || !strings.Contains(out, c.says) {
				t.Errorf("status: exit %d:\n%s", code, out)
			}
			if code, out := millrace("buffer", "verify", "--path", dir); code != exitFailed || strings.Count(out, c.says) != 1 {
				t.Errorf("verify: exit %d:\n%s", code, out)
			}
			code, out := millrace("buffer", "export", "--path", dir)
			if code != exitFailed {
				t.Errorf("export: exit %d", code)
			}
			if n := strings.Count(out, `"seq":`); (what == "state.db") != (n >= 100) {
				t.Errorf("%d records exported", n)
			}
			if after := listDir(t, dir); after != before {
				t.Errorf("looking changed the directory:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// firstSegment returns the path of a store's first segment.
func firstSegment(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "seg-*.db"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	return names[0]
}
