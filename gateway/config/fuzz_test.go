package config

import (
	"errors"
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

// FuzzCSV: whatever stands in a file of tags, it is loaded or each mistake has a place and a mend.
func FuzzCSV(f *testing.F) {
	for _, name := range []string{"press.csv", "press-bad.csv", "empty.csv"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("name\taddress\tscale\na\tholding:1\t1,5\n"))
	f.Add([]byte("name,expr,aggregate,linear,clamp,address\na,b * 2,mean 1m,,,\nb,,,0..1 -> 2..3,true,holding:1\n"))
	dir := f.TempDir()
	config := filepath.Join(dir, "millrace.yaml")
	text := "gateway: g\ndestinations: [{name: c, url: \"mqtt://h\"}]\ndevices: [{name: d, driver: modbus, url: \"tcp://h:1\", groups: [{name: g, interval: 1s, tags: {csv: tags.csv}}]}]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, "tags.csv"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := load(config)
		if list := (*Errors)(nil); errors.As(err, &list) {
			checkForm(t, list)
		} else if err != nil {
			t.Fatal(err)
		}
	})
}
