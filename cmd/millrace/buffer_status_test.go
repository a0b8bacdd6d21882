package main

import (
	"testing"
	"time"

	"millrace/buffer"
)

// TestAbsentText: of a destination that is not in the config only that is said to be kept which is.
func TestAbsentText(t *testing.T) {
	for _, c := range []struct {
		d    buffer.DestinationStats
		want string
	}{
		{buffer.DestinationStats{Name: "old"}, "not configured any more, and nothing is kept for it; `millrace buffer forget old` takes it off this list, and so does a new destination that finds all 16 places of the store taken"},
		{buffer.DestinationStats{Name: "old", Backlog: 2}, "not configured any more; 2 records kept for it until it is back or `millrace buffer forget old` gives that up"},
		{buffer.DestinationStats{Name: "old", Quarantined: 1, Untold: 3}, "not configured any more; 1 in quarantine and 3 gap messages kept for it until it is back or `millrace buffer forget old` gives that up"},
	} {
		if got := absentText(&c.d); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestRoomText: a store is full below max_size, which is said where its size stands.
func TestRoomText(t *testing.T) {
	const rest, kept = "; the rest of what is free of max_size", " is kept for state.db and the next commit"
	for _, c := range []struct {
		b    buffer.Stats
		want string
	}{
		{buffer.Stats{Room: 3 << 19}, "1.5 MiB more of records at most" + rest + kept},
		{buffer.Stats{Room: 4096, Refusing: time.Unix(1, 0)}, "none, it is full; what is free of max_size" + kept},
		{buffer.Stats{Room: 3 << 19, Refusing: time.Unix(1, 0), RefusedUntil: time.Unix(2, 0)}, "1.5 MiB more of records at most" + rest + kept},
		{buffer.Stats{Room: 3 << 19, Refusing: time.Unix(1, 0), RefusingDisk: true}, "1.5 MiB more of records at most" + rest + kept},
	} {
		if got := roomText(&c.b); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
