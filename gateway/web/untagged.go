package web

import (
	"cmp"
	"slices"

	"millrace/drivers/telemetry"
	"millrace/gateway/values"
)

// untagged are the groups that have no tags, because their rules select nothing or were not followed yet. Each has a row among
// the values, without a tag, so that its device is seen.
type untagged []Value

// untaggedOf returns those that are wanted, in the order of the table of values.
func untaggedOf(s *Snapshot, want values.Want) (list untagged) {
	if want.Tag != "" {
		return nil
	}
	for i := range s.Devices {
		d := &s.Devices[i]
		v := Value{Device: d.Name, Reason: cmp.Or(d.Reason, d.Rule.What)}
		if v.Reason != "" {
			v.Quality = telemetry.Bad.String()
		} else {
			v.Reason = "its rule has found no tags yet"
		}
		if want.Device != "" && d.Name != want.Device || want.Bad && v.Quality == "" {
			continue
		}
		for j := range d.Groups {
			if g := &d.Groups[j]; g.Tags == 0 {
				v.Group, v.Every = g.Name, g.Interval.Seconds()
				list = append(list, v)
			}
		}
	}
	slices.SortFunc(list, func(a, b Value) int { return a.compare(b.Device, b.Group) })
	return list
}

// before takes out, and returns, those that stand before a group of the table; nor is that one without tags any more.
func (u *untagged) before(device, group string) []Value {
	n, same := slices.BinarySearchFunc(*u, 0, func(v Value, _ int) int { return v.compare(device, group) })
	out := (*u)[:n]
	if *u = (*u)[n:]; same {
		*u = (*u)[1:]
	}
	return out
}

func (v *Value) compare(device, group string) int {
	return cmp.Or(cmp.Compare(v.Device, device), cmp.Compare(v.Group, group))
}
