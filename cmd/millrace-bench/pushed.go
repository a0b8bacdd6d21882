package main

import "encoding/json"

// pushedMessage is a message of a device that pushes: a late server tells several scans in one message, or one in several.
type pushedMessage struct {
	Values  map[string]uint64 `json:"values"`
	Earlier []struct {
		Tag   string `json:"tag"`
		Value uint64 `json:"value"`
	} `json:"earlier"`
}

// pieces counts the readings of each scan. A scan is whole when all its tags have told its number, but for the two that tell the time.
func (a *account) pieces(d *deviceAccount, payload []byte) {
	var m pushedMessage
	if err := json.Unmarshal(payload, &m); err != nil {
		a.torn++
		return
	}
	if d.told == nil {
		d.told = map[uint64]int{}
	}
	take := func(tag string, scan uint64) {
		if tag == "t1" || tag == "t2" {
			return
		}
		if d.told[scan]++; d.told[scan] < a.tags-2 {
			return
		}
		if delete(d.told, scan); !d.scans.add(scan) {
			a.duplicates += uint64(a.tags)
			return
		}
		a.readings += uint64(a.tags)
	}
	for tag, v := range m.Values {
		take(tag, v)
	}
	for _, e := range m.Earlier {
		take(e.Tag, e.Value)
	}
}

// begin leaves out the scans before the first whole one: the server begins to count while its items are still being made.
func (d *deviceAccount) begin() {
	if len(d.scans.r) > 0 {
		d.scans.r[0][0] = 1
	}
}
