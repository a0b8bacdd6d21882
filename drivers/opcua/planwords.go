package opcua

import (
	"fmt"
	"slices"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// What servers must take at least, by the profile that they claim (OPC 10000-7 v1.04, 6.6.15, 6.6.16 and 6.6.18).
const leastOfServers = "a server must take 1 with 2 items by the Micro profile, 2 with 100 each by Embedded, 5 with 500 each by Standard"

// Plan says how a group is asked for: a line for each Read request of a poll, or for its subscription. The limit of nodes a request is
// the server's when connected, else the one taken for servers that state none. The last group's has a line on all of them.
func (d *driver) Plan(ref drivers.Ref) (lines []string) {
	groups := d.groups[ref.Device]
	g := &groups[ref.Group]
	if g.rule != nil {
		lines = append(lines, g.rule.String())
	}
	if text := g.astray(); text != "" {
		defer func() { lines = append(lines, text) }()
	}
	if d.set.subscribing == modeRead {
		return append(lines, d.reads(g)...)
	}
	lines = append(lines, d.subscribes(g))
	if d.set.subscribing == modeAuto {
		refused := "that"
		if len(g.eventTags()) > 0 {
			refused = "the whole subscription"
		}
		for _, line := range d.reads(g) {
			lines = append(lines, "or, where the server refuses "+refused+", "+line)
		}
	}
	if ref.Group == len(groups)-1 {
		items, events := 0, 0
		for i := range groups {
			items, events = items+len(groups[i].asked()), events+len(groups[i].eventTags())
		}
		line := fmt.Sprintf("in all %s with %s; %s", telemetry.Count(len(groups), "subscription"), telemetry.Count(items, "item"), leastOfServers)
		if len(groups) > 1 {
			line += "; groups share one, published as often as the fastest of them, where the server has too few"
		}
		if d.hasRule() {
			line += "; and one subscription more, if the server has it, to hear when its nodes change"
		}
		if d.set.subscribing == modeSubscribe && events < items {
			line += "; `mode: auto` polls what is refused"
			if events > 0 {
				line += ", of a group with events its values, and only where the whole subscription is"
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// astray says which browse path of a group is likely to begin at another node than is meant, the first, "" for none.
func (g *group) astray() string {
	if g.rule != nil {
		if text := g.rule.at.astray(); text != "" {
			return "browse " + text
		}
	}
	for i := range g.tags {
		if text := g.tags[i].addr.astray(); text != "" {
			return "the address " + text
		}
	}
	return ""
}

// Requests returns how many a poll makes: see drivers.Planner.
func (d *driver) Requests(ref drivers.Ref) int {
	if d.set.subscribing != modeRead {
		return 0
	}
	return len(d.reads(&d.groups[ref.Device][ref.Group]))
}

// subscribes says in words what the subscription of a group is asked to be.
func (d *driver) subscribes(g *group) string {
	items, events := len(g.asked()), len(g.eventTags())
	text := "subscribe to " + telemetry.Count(items, "item") + ": "
	if events < items {
		text += "sampled every " + telemetry.Short(g.interval) + ", "
	}
	text += fmt.Sprintf("published every %s if the server can, %s kept until then", telemetry.Short(termsFor(g.interval, d.set.quiet).publish), d.kept(items-events, events))
	if events > 0 && d.set.backfill {
		text += "; events are in no history, and those of an outage are lost"
	}
	if n := len(g.bands()); n > 0 {
		text += "; the server keeps small changes of " + telemetry.Count(n, "tag")
	}
	if d.set.verify > 0 {
		text += fmt.Sprintf("; what was not pushed for %s is read", telemetry.Short(d.set.verify))
	}
	return text
}

// kept says how much the server is asked to keep of so many items of values and of events.
func (d *driver) kept(values, events int) string {
	ofValues, ofEvents := telemetry.Count(d.set.queue, "value"), telemetry.Count(eventQueue, "event")
	switch {
	case events == 0:
		return ofValues + " of each"
	case values == 0:
		return ofEvents + " of each"
	}
	return ofValues + " or " + ofEvents + " of each"
}

// reads returns a line for each Read request of a poll, which has no events.
func (d *driver) reads(g *group) (lines []string) {
	var sizes []int
	for tags := slices.DeleteFunc(g.asked(), func(i int) bool { return g.tags[i].event != nil }); len(tags) > 0; {
		n := g.fit(tags, d.most, maxRequest)
		sizes, tags = append(sizes, n), tags[n:]
	}
	if d.set.register && len(sizes) > 0 {
		lines = append(lines, "the nodes are registered, once a session, and read by the handles that the server gives")
	}
	for i, n := range sizes {
		if len(sizes) == 1 {
			lines = append(lines, fmt.Sprintf("read %s in 1 request of up to %d", telemetry.Count(n, "node"), d.most))
		} else {
			lines = append(lines, fmt.Sprintf("read %s in request %d of %d, up to %d each", telemetry.Count(n, "node"), i+1, len(sizes), d.most))
		}
	}
	return lines
}
