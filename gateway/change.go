package gateway

import (
	"fmt"
	"path/filepath"
	"strings"

	"millrace/gateway/config"
)

// Change is what a reload did.
type Change struct {
	File string // the config, as an absolute path
	Hash string // config.Hash of what is in force now

	Added, Changed, Removed []string // devices
	Along                   []string // devices that did not change, restarted because they share a connection with one that did
	Destinations            []string // those that log in again
	Settings                []string // keys besides devices and destinations
	Kept                    int      // connections that went on untouched
}

// changeOf compares what runs with what is to run.
func changeOf(old, next *running) *Change {
	c := &Change{File: next.cfg.File, Hash: next.hash}
	if path, err := filepath.Abs(c.File); err == nil {
		c.File = path
	}
	kept := map[*connection]bool{}
	before, after := map[string]deviceConfig{}, map[string]bool{}
	for _, conn := range old.connections {
		kept[conn] = true
		for _, d := range conn.devices {
			before[d.name] = d
		}
	}
	for _, conn := range next.connections {
		for _, d := range conn.devices {
			after[d.name] = true
		}
		if kept[conn] {
			c.Kept++
			continue
		}
		for _, d := range conn.devices {
			switch was, there := before[d.name]; {
			case !there:
				c.Added = append(c.Added, d.name)
			case was == d:
				c.Along = append(c.Along, d.name)
			default:
				c.Changed = append(c.Changed, d.name)
			}
		}
	}
	for _, conn := range old.connections {
		for _, d := range conn.devices {
			if !after[d.name] {
				c.Removed = append(c.Removed, d.name)
			}
		}
	}
	for _, d := range next.destinations {
		if d.task == nil {
			c.Destinations = append(c.Destinations, d.cfg.Name)
		}
	}
	c.settings(old.cfg, next.cfg)
	return c
}

func (c *Change) settings(old, cfg *config.Config) {
	for _, k := range []struct {
		key     string
		changed bool
	}{
		{"grace_time", old.GraceTime != cfg.GraceTime},
		{"log.level", old.Log.Level != cfg.Log.Level},
		{"web", old.Web != cfg.Web},
	} {
		if k.changed {
			c.Settings = append(c.Settings, k.key)
		}
	}
}

// maxNamed is how many names of one kind String spells out.
const maxNamed = 8

// String returns what changed in one line.
func (c *Change) String() string {
	var parts []string
	say := func(what string, names []string) {
		if len(names) == 0 {
			return
		}
		list := strings.Join(names[:min(len(names), maxNamed)], ", ")
		if more := len(names) - maxNamed; more > 0 {
			list += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, fmt.Sprintf("%s: %s", what, list))
	}
	say("devices added", c.Added)
	say("changed", c.Changed)
	say("removed", c.Removed)
	say("restarted because they share a connection", c.Along)
	say("destinations that log in again", c.Destinations)
	say("settings", c.Settings)
	if len(parts) == 0 {
		return "nothing changed"
	}
	return strings.Join(append(parts, fmt.Sprintf("connections untouched: %d", c.Kept)), "; ")
}
