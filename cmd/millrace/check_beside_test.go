package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckTellsOfStoreBeside: where the config would make a new store, check tells of one beside it in which records wait.
func TestCheckTellsOfStoreBeside(t *testing.T) {
	dir := makeStore(t, 100)
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	writeFile(t, file, fmt.Sprintf("gateway: g\nbuffer: {path: %q}\ndestinations: [{name: cloud, url: \"mqtt://127.0.0.1\"}]\ndevices:\n"+
		"  - {name: d, driver: modbus, url: \"tcp://127.0.0.1:1\", groups: [{name: g, interval: 1s, tags: [{name: a, address: \"holding:1\"}]}]}\n", dir+"-new"))
	backup := filepath.Join(filepath.Dir(dir), "backup")
	mustSay(t, nil, "buffer", "backup", backup, "--path", dir)
	out := mustSay(t, []string{fmt.Sprintf("has no store yet, and the one in %q keeps 100 records", dir), "move the directory"}, "check", "--config", file)
	if strings.Contains(out, backup) {
		t.Errorf("a backup is taken for a store that was forgotten:\n%s", out)
	}
}
