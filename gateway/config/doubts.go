package config

import (
	"hash/fnv"
	"io"
	"net"
	"net/netip"
	"slices"

	"millrace/drivers"
)

// doubt warns of what can be meant, and often is not.
func (l *loader) doubt() {
	l.doubtListen()
	for _, members := range l.cfg.lines() {
		l.doubtTwins(members)
	}
}

// doubtListen warns of a page that others than this machine can reach: it has no login.
func (l *loader) doubtListen() {
	if w := &l.cfg.Web; w.Enabled && !isLoopback(w.Listen) {
		l.warnf(l.at(l.noted["web.listen"].v), "listen on 127.0.0.1 and put a proxy with a login in front, or let a firewall (of a container: the address that the port is published at) say who may",
			"web: listen %s can be reached from other machines, and the page has no login and no encryption: who reaches it sees every value and the names of devices and brokers, and can change nothing", quote(w.Listen))
	}
}

// isLoopback reports whether only this machine can reach a host:port.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip, perr := netip.ParseAddr(host)
	return err == nil && (host == "localhost" || perr == nil && ip.Unmap().IsLoopback())
}

// lines returns the indexes of the devices behind each url of a driver, where there are several.
func (c *Config) lines() (lines [][]int) {
	type line struct{ driver, url string }
	at := map[line][]int{}
	for i := range c.Devices {
		d := &c.Devices[i]
		of := line{d.Driver, d.URL}
		if p := c.protocol(d.Driver); p == nil {
			continue
		} else if p.Normal != nil {
			of.url = p.Normal(d.URL)
		}
		at[of] = append(at[of], i)
	}
	for _, members := range at {
		if len(members) > 1 {
			lines = append(lines, members)
		}
	}
	slices.SortFunc(lines, func(a, b []int) int { return a[0] - b[0] })
	return lines
}

// doubtTwins warns of each device that is the same as one before it on its line: often a copy in which only the name was changed. Behind one url without
// units, as an OPC UA server's, several devices are usual, and one is the same only with the same addresses.
func (l *loader) doubtTwins(members []int) {
	p := l.cfg.protocol(l.cfg.Devices[members[0]].Driver)
	first := map[string]int{} // by identity
	for _, i := range members {
		d := &l.cfg.Devices[i]
		who, what := "", "driver and url"
		for _, name := range p.Identity {
			who += d.Options[name] + "\x00"
			if d.Options[name] != "" || p.Shares && name == p.Identity[0] {
				what += " and " + name
			}
		}
		if !p.Shares {
			who += string(addresses(p, d))
			what += " and addresses"
		}
		j, twin := first[who]
		if !twin {
			first[who] = i
			continue
		}
		at, _ := l.places[i].field(l, "url")
		l.warnf(at, "if it is a copy of that one, give it its own; if one device is meant to be two here, leave it so", "device %q has the same %s as %q: it is the same device, asked twice", d.Name, what, l.cfg.Devices[j].Name)
	}
}

// addresses sums up what a device is asked for, and how.
func addresses(p *drivers.Protocol, d *Device) []byte {
	h := fnv.New128a()
	for i := range d.Groups {
		for _, o := range p.GroupOptions {
			_, _ = io.WriteString(h, d.Groups[i].Options[o.Name]+"\x00")
		}
		for j := range d.Groups[i].Tags {
			_, _ = io.WriteString(h, d.Groups[i].Tags[j].Address+"\x00") // a hash takes everything
		}
	}
	return h.Sum(nil)
}
