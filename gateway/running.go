package gateway

import (
	"slices"
	"time"

	"millrace/gateway/config"
	"millrace/gateway/poller"
	"millrace/gateway/web"
)

// running is everything that a config wants to run but the store. What two of them have in common is the same pointer in both.
type running struct {
	cfg          *config.Config // without tags
	hash         string         // of the whole config
	connections  []*connection  // in the order of cfg.Connections
	writes       map[*connection]allowed
	destinations []*destination // in the order of cfg.Destinations
	page         *page          // nil = none
}

// page is the listener of the operator's page.
type page struct {
	listen   string
	listener *web.Listener
	*task    // nil until it is started, as in connection and destination
}

// without returns what of r is not in next.
func (r *running) without(next *running) *running {
	gone := &running{connections: notIn(r.connections, next.connections), destinations: notIn(r.destinations, next.destinations)}
	if r.page != next.page {
		gone.page = r.page
	}
	return gone
}

func notIn[T comparable](list, other []T) (rest []T) {
	in := make(map[T]bool, len(other))
	for _, v := range other {
		in[v] = true
	}
	for _, v := range list {
		if !in[v] {
			rest = append(rest, v)
		}
	}
	return rest
}

// stop tells everything in r to end; it does not wait.
func (r *running) stop() {
	if r.page != nil {
		r.page.cancel()
	}
	for _, d := range r.destinations {
		d.cancel()
	}
	for _, c := range r.connections {
		c.stop()
	}
}

// sessions returns the tasks of all destinations: two of them may have exchanged their client ids.
func (r *running) sessions() (list []*task) {
	for _, d := range r.destinations {
		list = append(list, d.task)
	}
	return list
}

// succeed has the devices of new connections that were up on those they replace count as up until they are tried: that a reload
// connects anew is no fault of theirs, and nobody is to be woken for it. mu of the gateway is held.
func (j *judge) succeed(gone, next []*connection) {
	now, until := time.Now(), map[string]time.Time{}
	for _, c := range gone {
		stats := c.poller.Stats()
		for i, d := range c.devices {
			switch {
			case c.exchanged(&stats, i, now): // one reload after another does not prolong it
				until[d.name] = c.upUntil[i]
			case stats.Up && stats.Devices[i].Reason == "" && !j.stands("device", d.name, web.StateDown):
				until[d.name] = now.Add(firstLook)
			}
		}
	}
	for _, c := range next {
		if c.task != nil {
			continue
		}
		for i, d := range c.devices {
			c.upUntil[i] = until[d.name]
		}
	}
}

// exchanged reports whether a device still counts as it did on the connection that this one replaces.
func (c *connection) exchanged(stats *poller.Stats, i int, now time.Time) bool {
	return now.Before(c.upUntil[i]) && stats.Devices[i].Reason == poller.NotYet
}

// ending is the connections that were told to end, by what only one connection may have at a time: a device, a url. It
// outlives a reload, because the next one may bring back a device before its old connection has ended.
type ending map[string][]*task

// add takes in connections that were told to end and forgets those that have.
func (e ending) add(gone []*connection) {
	for key, list := range e {
		list = slices.DeleteFunc(list, (*task).over)
		if e[key] = list; len(list) == 0 {
			delete(e, key)
		}
	}
	for _, c := range gone {
		for _, key := range c.exclusive() {
			e[key] = append(e[key], c.task)
		}
	}
}

// all returns the tasks of all of them.
func (e ending) all() (list []*task) {
	for _, tasks := range e {
		list = append(list, tasks...)
	}
	return list
}

// before returns the tasks that must end before c begins.
func (e ending) before(c *connection) (list []*task) {
	for _, key := range c.exclusive() {
		list = append(list, e[key]...)
	}
	return list
}
