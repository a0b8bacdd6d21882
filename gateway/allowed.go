package gateway

import (
	"fmt"
	"slices"

	"millrace/drivers"
	"millrace/drivers/telemetry"
	"millrace/gateway/command"
	"millrace/gateway/config"
)

// rulesFor returns the rules that allow writes to tags of a connection, and calls of methods.
func rulesFor(cfg *config.Config, c *config.Connection) (rules []config.Write) {
	for _, w := range cfg.Writes {
		for _, d := range c.Devices {
			if d.Name == w.Device {
				rules = append(rules, w)
			}
		}
	}
	return rules
}

// allowed is what may be written and called over a connection. It is no part of it, so that other rules do not exchange it.
type allowed struct {
	rules   []config.Write
	targets []command.Target
}

// allow finds the tags that the rules name: of two with one name, the first. The driver at work belongs to its poller, so
// that another one, which never connects, says what the tags are.
func allow(conn *connection, c *config.Connection, rules []config.Write) (allowed, error) {
	if len(rules) == 0 {
		return allowed{}, nil
	}
	d, err := c.Protocol.New(c.Connection)
	if err != nil {
		return allowed{}, fmt.Errorf("prepare writes of device %q: %w", c.Devices[0].Name, err)
	}
	defer d.Close()
	return allowed{rules, targets(conn, c, d, rules)}, nil
}

func targets(conn *connection, c *config.Connection, d drivers.Driver, rules []config.Write) (list []command.Target) {
	for _, w := range rules {
		rule := command.Rule{Device: w.Device, Tag: w.Tag, Min: w.Min, Max: w.Max, Ranged: w.Ranged, Method: w.Method, Count: w.Count, Per: w.Per}
		for _, a := range w.Arguments {
			rule.Arguments = append(rule.Arguments, command.Range{Min: a.Min, Max: a.Max, Given: a.Ranged})
		}
		find := target
		if w.Method != "" {
			find = methodTarget(&w)
		}
		if t, ok := find(c, d, &rule); ok {
			t.Do = conn.poller.Do
			list = append(list, t)
		}
	}
	return list
}

// methodTarget returns what finds the device whose method a rule names.
func methodTarget(w *config.Write) func(*config.Connection, drivers.Driver, *command.Rule) (command.Target, bool) {
	return func(c *config.Connection, _ drivers.Driver, rule *command.Rule) (command.Target, bool) {
		i := slices.IndexFunc(c.Devices, func(d *config.Device) bool { return d.Name == rule.Device })
		return command.Target{Rule: *rule, Method: w.CallOf(i)}, i >= 0
	}
}

func target(c *config.Connection, d drivers.Driver, rule *command.Rule) (command.Target, bool) {
	for i, dev := range c.Devices {
		for j := range dev.Groups {
			for k := range dev.Groups[j].Tags {
				tag := &dev.Groups[j].Tags[k]
				if dev.Name != rule.Device || tag.Name != rule.Tag {
					continue
				}
				t := command.Target{Rule: *rule, Group: drivers.Ref{Device: i, Group: j}, Index: k, Tag: *tag}
				_, t.Asks = d.(drivers.WriteTyper)
				if types := dataTypes(d, t.Group); types != nil {
					t.Type = types[k]
				}
				return t, true
			}
		}
	}
	return command.Target{}, false
}

func events(d drivers.Driver, g drivers.Ref) []int {
	if e, ok := d.(drivers.Eventful); ok {
		return e.Events(g)
	}
	return nil
}

func dataTypes(d drivers.Driver, g drivers.Ref) []telemetry.DataType {
	if t, ok := d.(drivers.Typed); ok {
		return t.DataTypes(g)
	}
	return nil
}
