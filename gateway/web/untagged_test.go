package web

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// TestGroupsWithoutTagsAreSeen: a group whose rule selects nothing has a row, in its place, with why, until it has tags.
func TestGroupsWithoutTagsAreSeen(t *testing.T) {
	f := newFake(t, 0)
	f.table, _ = plantTable() // press-1/fast with nine tags, press-2/fast with one
	none := func(name string, groups ...string) Device {
		d := Device{Name: name}
		for _, g := range groups {
			d.Groups = append(d.Groups, Group{Name: g, Interval: time.Second})
		}
		return d
	}
	down, ruled, fresh, last := none("cnc-1", "a"), none("press-1", "empty", "fast", "late"), none("press-15", "a"), none("saw", "z", "a")
	down.Reason, ruled.Rule.What, last.Rule.What = "not connected", "the rule selects nothing", "so here"
	ruled.Groups = append(ruled.Groups, Group{Name: "other", Tags: 3})
	f.snap = &Snapshot{Devices: []Device{last, ruled, fresh, down}}
	dir := serve(t, f)
	for path, want := range map[string]string{
		"values": "cnc-1/a bad not connected; press-1/empty bad the rule selects nothing; 9 tags; press-1/late bad the rule selects nothing; " +
			"press-15/a  its rule has found no tags yet; 1 tags; saw/a bad so here; saw/z bad so here; ",
		"values?bad=1": "cnc-1/a bad not connected; press-1/empty bad the rule selects nothing; 2 tags; press-1/late bad the rule selects nothing; " +
			"saw/a bad so here; saw/z bad so here; ",
		"values?device=saw":   "saw/a bad so here; saw/z bad so here; ",
		"values?tag=speed":    "2 tags; ",
		"values?device=cnc-1": "cnc-1/a bad not connected; ",
	} {
		code, text := over(t, dir, "GET", "/api/v1/"+path)
		var list []Value
		if err := json.Unmarshal(text, &list); err != nil || code != 200 {
			t.Fatalf("%s: %d: %v", path, code, err)
		}
		if got := rowsOf(list); got != want {
			t.Errorf("%s:\n%s, want\n%s", path, got, want)
		}
	}
	if code, text := over(t, dir, "GET", "/api/v1/values?device=saw&tag=speed"); code != 404 {
		t.Errorf("a tag of a device that has none yet: %d %s", code, text)
	}
}

// rowsOf writes the rows without a tag, and how many others stand between them.
func rowsOf(list []Value) (text string) {
	tags := 0
	count := func() {
		if tags > 0 {
			text += fmt.Sprintf("%d tags; ", tags)
		}
		tags = 0
	}
	for _, v := range list {
		if v.Tag != "" {
			tags++
			continue
		}
		count()
		text += v.Device + "/" + v.Group + " " + v.Quality + " " + v.Reason + "; "
	}
	count()
	return text
}
