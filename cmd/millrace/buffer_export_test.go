package main

import (
	"strings"
	"testing"
	"time"

	"millrace/buffer"
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

// TestGapText: a time that nobody knows is said in words.
func TestGapText(t *testing.T) {
	at := time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC).UnixMicro()
	for _, c := range []struct {
		gap  buffer.Gap
		want string
	}{
		{buffer.Gap{From: at, To: at + 1e6, Count: 3}, "3 readings lost: full, from 2026-11-28T10:00:00.000Z to 2026-11-28T10:00:01.000Z"},
		{buffer.Gap{To: at, Unknown: true, Cause: buffer.CauseOutage, Reason: "why"}, "unknown readings lost: outage, from an unknown time to 2026-11-28T10:00:00.000Z: why"},
		{buffer.Gap{Unknown: true, Cause: buffer.CauseDamaged}, "unknown readings lost: damaged, it is not known of when"},
	} {
		if got := gapText(&c.gap); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
