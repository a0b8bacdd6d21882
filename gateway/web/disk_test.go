package web

import (
	"strings"
	"testing"
	"time"
)

// TestDiskFullIsSaid: where others have filled the disk, that is said, with what to do, and not that max_size is reached.
func TestDiskFullIsSaid(t *testing.T) {
	now, free := time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC), int64(4096)
	before := int64(6 << 20)
	losing := func(s *Snapshot) {
		s.Losses = []Loss{{Destination: "cloud", Readings: 2, Causes: "2 full", From: now, To: now, Losing: true}}
	}
	for name, c := range map[string]struct {
		build       func(*Snapshot)
		want, never string
	}{
		"max_size":   {func(s *Snapshot) { s.Buffer.Refusing = now }, "it is full, and new readings are refused", "disk"},
		"room again": {func(s *Snapshot) { s.Buffer.Refusing, s.Buffer.RefusedUntil = now, now.Add(time.Second) }, "new readings were refused until " + now.Add(time.Second).Format(time.RFC3339) + "; there is room again", "it is full"},
		"taken again, disk full": {func(s *Snapshot) {
			s.Buffer.Refusing, s.Buffer.RefusedUntil, s.Buffer.DiskFull = now, now.Add(time.Second), true
			s.Buffer.Health, s.Buffer.RefusingDisk = "degraded: no space left", true
		}, "they are taken again, but the store is failing (when_full: drop-newest); make room on the disk of /data (4,096 bytes free)", "there is room again"},
		"for one": {func(s *Snapshot) { s.Buffer.Refusing, s.Buffer.RefusingFor = now, []string{"old"} },
			"it is full of what has not gone to old, and new readings are refused for that alone (when_full: drop-newest); it ends when that takes its backlog, or is taken out", "disk"},
		"for two": {func(s *Snapshot) { s.Buffer.Refusing, s.Buffer.RefusingFor = now, []string{"old", "lake"} },
			"it is full of what has not gone to old, lake, and new readings are refused for these alone (when_full: drop-newest); it ends when these take their backlogs, or are taken out", "that"},
		"drop-newest": {func(s *Snapshot) { s.Buffer.Refusing, s.Buffer.RefusingDisk, s.Buffer.DiskFull = now, true, true },
			"its disk has no space left, its memory is full, and new readings are refused; make room on the disk of /data (4,096 bytes free)", "max_size"},
		"a disk that fails": {func(s *Snapshot) { s.Buffer.Refusing, s.Buffer.RefusingDisk = now, true }, "its disk takes nothing, its memory is full", "max_size"},
		"drop-oldest":       {func(s *Snapshot) { losing(s); s.Buffer.DiskFull = true }, "the store's disk has no space left: make room on the disk of /data (4,096 bytes free)", "ledger"},
		"a loss":            {losing, "the ledger has the causes", "disk"},
		"not known":         {func(s *Snapshot) { losing(s); s.Buffer.DiskFull, s.Buffer.DiskFree = true, nil }, "make room on the disk of /data; ", "bytes free"},
		"no inode":          {func(s *Snapshot) { losing(s); s.Buffer.DiskFull, s.Buffer.NoInodes = true, true }, "remove files on the disk of /data, which has no inode free for a new one (see df -i)", "bytes free"},
		"seen before":       {func(s *Snapshot) { losing(s); s.Buffer.DiskFull, s.Buffer.DiskFree = true, &before }, "make room on the disk of /data; ", "bytes free"},
		"failing":           {func(s *Snapshot) { s.Buffer.Health, s.Buffer.DiskFull = "degraded: no space left", true }, ": no space left; make room on the disk of /data (4,096 bytes free); the store goes on", "see to"},
	} {
		s := &Snapshot{Now: now, Buffer: Buffer{Path: "/data", Health: HealthOK, DiskFree: &free}}
		c.build(s)
		s.Judge()
		if text := s.States[0].String(); !strings.Contains(text, c.want) || strings.Contains(text, c.never) {
			t.Errorf("%s: %q, want %q and no %q", name, text, c.want, c.never)
		}
	}
}
