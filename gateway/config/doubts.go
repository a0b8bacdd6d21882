package config

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"millrace/drivers"
)

// doubt warns of what can be meant, and often is not.
func (l *loader) doubt() {
	l.doubtListen()
	for _, members := range l.cfg.lines() {
		l.doubtTwins(members)
	}
	l.doubtSessions()
	for i := range l.cfg.Devices {
		l.doubtTimeout(i)
	}
}

// usualPorts are those of MQTT, by scheme: those whose number is another scheme's are taken for a slip.
var usualPorts = map[string]string{"mqtt": "1883", "mqtts": "8883", "ws": "80", "wss": "443"}

// doubtPort warns of a url with TLS at the port that is usual without, and the other way round.
func (l *loader) doubtPort(f field, u *url.URL) {
	other := map[string]string{"mqtt": "mqtts", "mqtts": "mqtt", "ws": "wss", "wss": "ws"}[u.Scheme]
	if u.Port() != usualPorts[other] {
		return
	}
	l.warnf(l.at(f.v), fmt.Sprintf("write %s:// if the broker listens there as is usual, or port %s; leave it so if it does not", other, usualPorts[u.Scheme]),
		"%s %s: port %s is the usual one of %s, and where a broker expects that it does not answer %s", f.name, quote(redact(f.v.n.Value)), u.Port(), other, u.Scheme)
}

// doubtSessions warns of one client id twice at one host, at the usual ports of two schemes: that is mostly one broker.
func (l *loader) doubtSessions() {
	first := map[string]*Destination{}
	for i := range l.cfg.Destinations {
		d := &l.cfg.Destinations[i]
		u, err := url.Parse(d.URL)
		if err != nil || d.ClientID == "" || u.Port() != usualPorts[u.Scheme] {
			continue
		}
		session := brokerHost(u.Hostname()) + "\x00" + d.ClientID
		other := first[session]
		if other == nil {
			first[session] = d
		} else if at := l.clientIDs[i]; brokerOf(other.URL) != brokerOf(d.URL) { // else it is a mistake
			l.warnf(at, "give it another client_id, unless these are two brokers", "destination %q has the same client_id at the same host as %q: if that is one broker, they disconnect each other", d.Name, other.Name)
		}
	}
}

// brokerOf returns the one form of the host and port of all urls that lead to the same listener, as far as no name is looked up; "" for none.
func brokerOf(text string) string {
	u, err := url.Parse(text)
	if err != nil || text == "" {
		return ""
	}
	return brokerHost(u.Hostname()) + ":" + u.Port()
}

// brokerHost returns the one form of a host: this machine has several names.
func brokerHost(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && (ip.IsUnspecified() || ip == netip.IPv6Loopback() || ip.Unmap() == netip.AddrFrom4([4]byte{127, 0, 0, 1})):
		return "localhost"
	case err == nil:
		return ip.Unmap().String()
	}
	return host
}

// A timeout is long when it is both longer than this and than so many intervals.
const (
	longTimeout   = 10 * time.Second
	longIntervals = 5
)

// doubtTimeout warns of a device whose silence is noticed only many polls later.
func (l *loader) doubtTimeout(i int) {
	d := &l.cfg.Devices[i]
	at, wrong := l.places[i].field(l, "timeout")
	if d.Timeout <= longTimeout || len(d.Groups) == 0 || wrong {
		return
	}
	g := slices.MinFunc(d.Groups, func(a, b Group) int { return cmp.Compare(a.Interval, b.Interval) })
	if d.Timeout <= longIntervals*g.Interval {
		return
	}
	l.warnf(at, "write the longest that the device takes for one answer, mostly 1s to 5s", "timeout %s of device %q is %d times the interval of group %q: one answer that does not come is waited for so long, and meanwhile nothing is read of it, nor of others on its line; that it is silent is seen no sooner",
		formatDuration(d.Timeout), d.Name, d.Timeout/g.Interval, g.Name)
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
			who += cmp.Or(d.Options[name], p.Default(name)) + "\x00"
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
		l.warnf(at, "if it is a copy of that one, give it its own; if one device is meant to be two here, leave it so", "device %q has the same %s as %q: it is the same device, asked twice, with requests of its own for each of the two", d.Name, what, l.cfg.Devices[j].Name)
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
