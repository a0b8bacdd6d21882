package main

import (
	"strings"
	"testing"
)

// TestExportOfNothing: a file without records is told from one that was not written.
func TestExportOfNothing(t *testing.T) {
	dir := makeStore(t, 10)
	for device, want := range map[string]bool{"nobody": true, "press-1": false} {
		told := stderrOf(t, func() { mustSay(t, nil, "buffer", "export", "--path", dir, "--device", device) })
		if strings.Contains(told, "no such record is in the store") != want {
			t.Errorf("export of %s says %q", device, told)
		}
	}
}
