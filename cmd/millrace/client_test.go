package main

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"

	"millrace/gateway/web"
)

// roundTheClient is how a running gateway can be asked but by the client of gateway/web.
var roundTheClient = regexp.MustCompile(`/api/v1/|control\.sock|\.Snapshot\(\)`)

// TestOneClient: every command and the demo ask a running gateway by the one client of gateway/web.
func TestOneClient(t *testing.T) {
	files := 0
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		files++
		for n, line := range strings.Split(readFile(t, name), "\n") {
			if roundTheClient.MatchString(line) {
				t.Errorf("%s:%d: goes round web.Client: %s", name, n+1, strings.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil || files < 50 {
		t.Errorf("%d files: %v", files, err)
	}
	if !roundTheClient.MatchString("s := d.gateway.Snapshot()") {
		t.Error("what the demo did once is not seen")
	}
}

// TestWhoAsksIsShort: a name from the environment is as the gateway takes it.
func TestWhoAsksIsShort(t *testing.T) {
	for name, want := range map[string]string{"anna": "anna", strings.Repeat("é", 300): strings.Repeat("é", web.MaxBy), "a\nb\xff": "ab?"} {
		t.Setenv("SUDO_USER", name)
		if got := whoAsks(); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}
