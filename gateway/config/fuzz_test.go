package config

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// FuzzLoad loads arbitrary bytes: it must not panic, must answer with a config or a list of mistakes, and must
// find the same config whether it parses the file whole or in pieces.
func FuzzLoad(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.yaml")
	for _, path := range paths {
		if data, err := os.ReadFile(path); err == nil && len(data) < 4096 {
			f.Add(data)
		}
	}
	for _, text := range tricks() {
		f.Add([]byte(head + text))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "c.yaml")
		want, wantErr := loadCut(t, path, data, math.MaxInt/2)
		if (want == nil) == (wantErr == "") || want == nil && !strings.HasPrefix(wantErr, "c.yaml") && !strings.HasPrefix(wantErr, dir) {
			t.Fatalf("config %v, error %q", want, wantErr)
		}
		if got, gotErr := loadCut(t, path, data, 1); !reflect.DeepEqual(got, want) {
			t.Fatalf("pieces: %+v %s\nwhole: %+v %s", got, gotErr, want, wantErr)
		}
	})
}

// FuzzUnits holds that what is formatted reads back as the same quantity.
func FuzzUnits(f *testing.F) {
	for _, s := range []string{"0", "1m30s", "1.5h", "30d", "500ms", "2GiB", "1.5KB", "9223372036854775807B", "1e3s", "-1s", "106751d", "1..5s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseDuration(s); err == nil {
			if again, err := parseDuration(formatDuration(d)); err != nil || again != d || d < 0 || d%time.Millisecond != 0 {
				t.Errorf("%q is %v, written %q, is %v, %v", s, d, formatDuration(d), again, err)
			}
		}
		if n, err := parseSize(s); err == nil {
			if again, err := parseSize(formatSize(n)); err != nil || again != n || n < 0 {
				t.Errorf("%q is %v, written %q, is %v, %v", s, n, formatSize(n), again, err)
			}
		}
	})
}
