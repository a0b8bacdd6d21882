package config

import (
	"maps"
	"slices"
	"strings"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Selects reports whether a group of the device has a rule that selects tags when the device is there.
func (d *Device) Selects() bool {
	return slices.ContainsFunc(d.Groups, func(g Group) bool { return g.Selects })
}

// selects reports whether a group has a rule.
func selects(p *drivers.Protocol, given []option) bool {
	return p != nil && p.Rule != "" && slices.ContainsFunc(given, func(o option) bool { return o.name == p.Rule && o.text != "" })
}

// ruled has it told whether keys of a rule pass, right or wrong: a group with one that lists no tags lacks something of the rule, which is reported, and no tags.
func (h *hooks) ruled(p *drivers.Protocol) *bool {
	found, other := new(bool), h.other
	h.other = func(f field) bool {
		*found = *found || p != nil && p.Rule != "" && (f.name == p.Rule || strings.HasPrefix(f.name, p.Rule+"_"))
		return other(f)
	}
	return found
}

// Add returns the group with the tags that its rule has selected behind those that it lists. It leaves the group as it is. What the config says of derived
// tags still holds.
func (g *Group) Add(tags []telemetry.Tag) Group {
	more, listed := *g, len(g.Tags)
	more.Tags = slices.Concat(g.Tags, tags)
	if g.Report != nil || g.Selected != (TagReport{}) {
		more.Report = make([]TagReport, listed, len(more.Tags))
		copy(more.Report, g.Report)
		more.Report = append(more.Report, slices.Repeat([]TagReport{g.Selected}, len(tags))...)
	}
	if len(g.Aggregates) > 0 { // those of derived tags stand behind the others
		more.Aggregates = make(map[int]Aggregate, len(g.Aggregates))
		for i, a := range maps.All(g.Aggregates) {
			if i >= listed {
				i += len(tags)
			}
			more.Aggregates[i] = a
		}
	}
	return more
}

// Only returns the config with these devices alone.
func (c *Config) Only(devices []Device) *Config {
	some := *c
	some.Devices = slices.Clone(devices)
	return &some
}
