package config

import (
	"fmt"
	"regexp"
	"slices"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// ofNumbers are the keys of a tag that mean nothing unless its values are numbers.
var ofNumbers = [...]string{"scale", "offset", "linear", "clamp", "aggregate", "deadband"}

// notNumbers says what values are that are no numbers, "" for numbers and where only a read will tell.
func notNumbers(t telemetry.DataType) string {
	switch t {
	case telemetry.BoolType:
		return "true or false"
	case telemetry.StringType:
		return "texts"
	case telemetry.TimeType:
		return "date-times"
	case telemetry.ArrayType:
		return "arrays"
	}
	return ""
}

// checkTypes refuses the keys of tags that mean nothing for the type of their values. d is nil where the driver has found mistakes.
func (l *loader) checkTypes(members []int, d drivers.Driver) {
	typed, _ := d.(drivers.Typed)
	for i, member := range members {
		dev := &l.cfg.Devices[member]
		for j := range dev.Groups {
			g := &dev.Groups[j]
			var types []telemetry.DataType
			if typed != nil {
				types = typed.DataTypes(drivers.Ref{Device: i, Group: j})
			}
			for k := range g.Tags {
				t := declaredType(&g.Tags[k])
				if types != nil {
					t = types[k]
				}
				if what := notNumbers(t); what != "" {
					l.checkKeys(dev.Name, g, k, l.places[member].groups[j].tag(k), t, what)
				}
			}
		}
	}
}

// declaredType is the type that a tag's own keys say, AnyType where they say none that all drivers have in common.
func declaredType(t *telemetry.Tag) telemetry.DataType {
	switch {
	case t.Options["enum"] != "" || t.Options["flags"] != "":
		return telemetry.StringType
	case t.Type == "json" || t.Type == eventType:
		return telemetry.StringType
	}
	for known := telemetry.BoolType; known <= telemetry.TimeType; known++ {
		if t.Type == known.String() {
			return known
		}
	}
	return telemetry.AnyType
}

// checkKeys refuses the keys of one tag, whose values are what is said. The group's deadband is not for it.
func (l *loader) checkKeys(device string, g *Group, tag int, p places, typ telemetry.DataType, what string) {
	t, deadband := &g.Tags[tag], false
	if g.Report != nil {
		deadband = g.Report[tag].dropDeadband()
	}
	if t.Type == eventType {
		l.checkEventKeys(device, g, tag, p, deadband)
		return
	}
	texts := t.Options["enum"] != "" || t.Options["flags"] != ""
	for _, name := range ofNumbers {
		at, written, reported := p.key(l, name)
		if !written || reported || name == "deadband" && !deadband || texts && slices.Contains(ofNumbers[:3], name) {
			continue // or the driver has found it
		}
		mend := "delete it"
		switch {
		case t.Options["enum"] != "" && typ == telemetry.StringType:
			mend = "delete it, or read the number in a tag of its own, without enum"
		case t.Options["flags"] != "" && typ == telemetry.StringType:
			mend = "delete it, or read the number in a tag of its own, without flags"
		case typ == telemetry.BoolType && name == "aggregate":
			mend = fmt.Sprintf("take it of a tag with expr: '%s ? 1 : 0', or delete it", inFormula(t.Name))
		}
		l.errorf(at, mend, "%s, %s: %s is of numbers, and its values are %s", called("device", device), called("tag", t.Name), name, what)
	}
}

// eventType is the type of a tag that takes events, where a driver has them.
const eventType = "event"

// checkEventKeys refuses the keys that mean nothing for a tag of events. What scales them the driver has found; report and heartbeat are for that the tag is bad.
func (l *loader) checkEventKeys(device string, g *Group, tag int, p places, deadband bool) {
	for _, key := range [...]struct {
		name, of string
		counts   bool
	}{
		{"clamp", "numbers", true}, {"aggregate", "numbers", true}, {"deadband", "numbers", deadband}, {"unit", "values", true},
	} {
		if at, written, reported := p.key(l, key.name); written && !reported && key.counts {
			l.errorf(at, "delete it", "%s, %s: %s is of %s, and the tag takes events", called("device", device), called("tag", g.Tags[tag].Name), key.name, key.of)
		}
	}
}

var plainWord = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// inFormula is how a formula names a tag.
func inFormula(name string) string {
	if plainWord.MatchString(name) {
		return name
	}
	return fmt.Sprintf("$env[%q]", name)
}
