package gateway

import (
	"path/filepath"
	"reflect"

	"millrace/gateway/config"
	"millrace/gateway/web"
)

// changeOf compares what runs with what is to run.
func changeOf(old, next *running) *web.Change {
	c := &web.Change{File: next.cfg.File, Hash: next.hash}
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
			c.Still = c.Still || conn.still
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
		switch was := find(old.destinations, func(o *destination) bool { return o.cfg.Name == d.cfg.Name }); {
		case was == nil:
			c.DestinationsAdded = append(c.DestinationsAdded, d.cfg.Name)
		case was != d:
			c.Destinations = append(c.Destinations, d.cfg.Name)
		}
	}
	for _, d := range old.destinations {
		if find(next.destinations, func(n *destination) bool { return n.cfg.Name == d.cfg.Name }) == nil {
			c.DestinationsRemoved = append(c.DestinationsRemoved, d.cfg.Name)
		}
	}
	c.Still = c.Still && len(c.DestinationsAdded) > 0
	settings(c, old.cfg, next.cfg)
	return c
}

func settings(c *web.Change, old, cfg *config.Config) {
	for _, k := range []struct {
		key     string
		changed bool
	}{
		{"grace_time", old.GraceTime != cfg.GraceTime},
		{"log.level", old.Log.Level != cfg.Log.Level},
		{"web", old.Web != cfg.Web},
		{"writes", !reflect.DeepEqual(old.Writes, cfg.Writes)},
	} {
		if k.changed {
			c.Settings = append(c.Settings, k.key)
		}
	}
}
