package web

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Change is what a reload did.
type Change struct {
	File string `json:"file"` // the config, as an absolute path
	Hash string `json:"hash"` // config.Hash of what is in force now

	Added   []string `json:"added"` // devices, as the next three
	Changed []string `json:"changed"`
	Removed []string `json:"removed"`
	Along   []string `json:"along"` // not changed, restarted because they share a connection with one that was

	DestinationsAdded   []string `json:"destinations_added"`
	DestinationsRemoved []string `json:"destinations_removed"` // what they have not acknowledged stays in the store, and they get nothing new
	Destinations        []string `json:"destinations"`         // those that log in again
	Settings            []string `json:"settings"`             // keys besides devices and destinations
	Kept                int      `json:"kept"`                 // connections that went on untouched
	Still               bool     `json:"still"`                // values of those that do not change come late to the destinations that were added
}

// MarshalJSON writes an empty list as [], not null.
func (c Change) MarshalJSON() ([]byte, error) {
	type plain Change
	for _, list := range []*[]string{&c.Added, &c.Changed, &c.Removed, &c.Along, &c.DestinationsAdded, &c.DestinationsRemoved, &c.Destinations, &c.Settings} {
		if *list == nil {
			*list = []string{}
		}
	}
	return json.Marshal(plain(c))
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
	say("destinations added", c.DestinationsAdded)
	if c.Still {
		parts = append(parts, "what is pushed (OPC UA) or reported on change goes to an added destination when it changes, or at the heartbeat of report: on-change")
	}
	say("destinations removed (they get nothing new, and what they have not acknowledged is kept until `millrace buffer forget NAME`)", c.DestinationsRemoved)
	if len(c.DestinationsAdded) > 0 && len(c.DestinationsRemoved) > 0 {
		parts = append(parts, "if a destination was renamed: what the old name has is not sent under the new one")
	}
	say("destinations that log in again", c.Destinations)
	say("settings", c.Settings)
	if len(parts) == 0 {
		return "nothing changed"
	}
	return strings.Join(append(parts, fmt.Sprintf("connections untouched: %d", c.Kept)), "; ")
}
