package config

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"millrace/drivers"
)

// listener is what this gateway listens on: the page, or a line whose device calls.
type listener struct {
	drivers.Listening
	driver string // "" = the page
	who    string
	at     pos
}

// noteListener remembers what a connection listens on.
func (l *loader) noteListener(first int, d drivers.Driver) {
	of, ok := d.(drivers.Listener)
	if !ok {
		return
	}
	if what := of.Listens(); what.Address != "" {
		dev := &l.cfg.Devices[first]
		at, _ := l.places[first].field(l, "url")
		l.listeners = append(l.listeners, listener{what, dev.Driver, fmt.Sprintf("device %q", dev.Name), at})
	}
}

// checkListeners refuses listeners that cannot be beside each other. It knows all of a config.
func (l *loader) checkListeners() {
	var all []*listener
	if web := &l.cfg.Web; web.Enabled {
		all = append(all, &listener{Listening: drivers.Listening{Address: web.Listen}, who: "the page"})
	}
	for i := range l.listeners {
		now := &l.listeners[i]
		for _, other := range all {
			if !l.fit(now, other) {
				break
			}
		}
		all = append(all, now)
	}
}

// fit reports whether two listeners can be beside each other, and what is wrong when they cannot.
func (l *loader) fit(now, other *listener) bool {
	switch {
	case !overlap(now.Address, other.Address):
		return true
	case now.driver != other.driver || now.Address != other.Address:
		l.errorf(now.at, "give one another port", "%s listens on %s, and %s on %s: only one of them can", now.who, now.Address, other.who, other.Address)
		return false
	case now.Caller == "" || other.Caller == "" || now.Caller == other.Caller:
		l.errorf(now.at, fmt.Sprintf("give each a %s of its own, or another port", now.Key), "%s listens on %s as %s does, and nothing tells their callers apart", now.who, now.Address, other.who)
		return false
	}
	return true
}

// overlap reports whether two addresses to listen on have a port and an address of this machine in common. Port 0 is any that is free.
func overlap(a, b string) bool {
	hostA, portA, err := net.SplitHostPort(a)
	hostB, portB, err2 := net.SplitHostPort(b)
	if err != nil || err2 != nil || portA != portB || portA == "0" {
		return false
	}
	x, anyA := hostOf(hostA)
	y, anyB := hostOf(hostB)
	return anyA || anyB || x == y
}

// hostOf returns the one form of a host, and whether it stands for all addresses: Go listens on those of both families then.
func hostOf(host string) (string, bool) {
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return strings.ToLower(host), host == ""
	}
	return ip.Unmap().String(), ip.IsUnspecified()
}
