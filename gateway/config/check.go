package config

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"millrace/drivers"
)

// finish fills in the defaults that depend on other keys and checks what no single key can tell.
func (l *loader) finish() {
	if !l.unread && !l.stopped {
		l.checkPresent()
	}
	l.checkClientIDs()
	l.checkTopics()
	l.checkFolder("buffer.path", l.cfg.Buffer.Path)
	l.checkFolder("pki.path", l.cfg.PKI.Path)
}

// checkFolder refuses a path that leads to a file: run would fail by it.
func (l *loader) checkFolder(name, path string) {
	f, ok := l.noted[name]
	if info, err := os.Stat(path); !ok || err != nil || info.IsDir() {
		return
	}
	l.errorf(l.at(f.v), "name a folder, which is made when it is missing", "%s %s is a file", name, quote(f.v.n.Value))
}

// checkPresent reports what the config as a whole lacks.
func (l *loader) checkPresent() {
	for _, need := range [...]struct{ name, what, mend string }{
		{"gateway", `the config has no key "gateway"`, `add "gateway: press-shop"; the name stands in every topic and message`},
		{"destinations", "the config has no destination to publish to", `add "destinations:" with a list of brokers`},
		{"devices", "the config has no device to poll", `add "devices:" with a list, or include files of devices`},
	} {
		if _, ok := l.set[need.name]; !ok && l.meant&l.tables.top.bit(need.name) == 0 {
			l.errorf(pos{line: 1, col: 1}, need.mend, "%s", need.what)
		}
	}
}

// checkClientIDs fills in client ids and refuses two equal ones at one broker, which would throw each other
// out for ever.
func (l *loader) checkClientIDs() {
	type session struct{ broker, id string }
	first := map[session]string{}
	for i := range l.cfg.Destinations {
		d := &l.cfg.Destinations[i]
		mend := "give it another client_id"
		if d.ClientID == "" {
			d.ClientID = l.cfg.Gateway
			mend = "give it a client_id of its own; without one it is the gateway's name"
		}
		s := session{brokerOf(d.URL), d.ClientID}
		if s.broker == "" || s.id == "" {
			continue // reported
		}
		if other, ok := first[s]; ok {
			l.errorf(l.clientIDs[i], mend, "destination %q has the same client_id at the same broker as %q: they would disconnect each other", d.Name, other)
			continue
		}
		first[s] = d.Name
	}
}

// checkTopics refuses templates that make a topic longer than MQTT allows, or one that is the broker's own.
func (l *loader) checkTopics() {
	device, group := "", ""
	for i := range l.cfg.Devices {
		d := &l.cfg.Devices[i]
		device = longer(device, d.Name)
		for j := range d.Groups {
			group = longer(group, d.Groups[j].Name)
		}
	}
	for i := range l.cfg.Destinations {
		r := strings.NewReplacer("{gateway}", l.cfg.Gateway, "{device}", device, "{group}", group)
		if n := len(r.Replace(l.cfg.Destinations[i].Topic)); n > maxTopic {
			l.errorf(l.topics[i], "shorten it or the names in it", "topic makes topics of up to %d bytes, more than %d", n, maxTopic)
		}
		if own := l.systemTopic(l.cfg.Destinations[i].Topic); own != "" {
			l.errorf(l.topics[i], "begin with another level, such as telemetry/", "topic makes the topic %s: below $SYS is what the broker tells of itself, and it refuses others there, or closes the connection", quote(own))
		}
	}
}

// systemTopic returns a topic below $SYS that a template makes, "" for none (MQTT 3.1.1 section 4.7.2).
func (l *loader) systemTopic(template string) string {
	if !strings.ContainsAny(template[:min(len(template), 1)], "${") { // the names need not be tried
		return ""
	}
	for i := range l.cfg.Devices {
		d := &l.cfg.Devices[i]
		for j := range d.Groups {
			topic := strings.NewReplacer("{gateway}", l.cfg.Gateway, "{device}", d.Name, "{group}", d.Groups[j].Name).Replace(template)
			if level, _, _ := strings.Cut(topic, "/"); level == "$SYS" {
				return topic
			}
		}
	}
	return ""
}

func longer(a, b string) string {
	if len(b) > len(a) {
		return b
	}
	return a
}

// checkDrivers lets the driver of each connection check its devices.
func (l *loader) checkDrivers() {
	links := l.cfg.links()
	l.checkSpares(links)
	var said []string
	for _, members := range links {
		c := l.cfg.connection(members)
		if c.Protocol.New == nil || l.stopped {
			continue
		}
		d, err := c.Protocol.New(c.Connection)
		if err != nil {
			l.driverErrors(members, err)
			d = nil
		}
		l.checkTypes(members, d)
		if d != nil {
			if len(l.rules) > 0 {
				l.checkWritable(members, d)
			}
			l.checkCallable(members, d)
			l.noteListener(members[0], d)
			l.doubtHeld(members[0], d, &said)
			_ = d.Close()
		}
	}
}

// checkSpares refuses a spare path that is another line, too: the device would see two clients.
func (l *loader) checkSpares(links [][]int) {
	type line struct{ driver, url string }
	of := map[line]int{} // of each line its first device, of spare paths the device that names them
	note := func(device int, url string) (other int, taken bool) {
		d := &l.cfg.Devices[device]
		if p := l.cfg.protocol(d.Driver); p != nil && p.Normal != nil {
			url = p.Normal(url)
		}
		at := line{d.Driver, url}
		if other, taken = of[at]; !taken {
			of[at] = device
		}
		return other, taken
	}
	for _, members := range links {
		if p := l.cfg.protocol(l.cfg.Devices[members[0]].Driver); p != nil && p.Redundant {
			note(members[0], l.cfg.Devices[members[0]].URL)
		}
	}
	for _, members := range links {
		for _, i := range members {
			d := &l.cfg.Devices[i]
			for _, url := range d.Spares {
				other, taken := note(i, url)
				if !taken || slices.Contains(members, other) {
					continue // the driver looks for what stands twice in one line
				}
				at, _ := l.places[i].field(l, "urls")
				l.errorf(at, "give both the same urls, or leave it out of one", "%s has the path %s, and %s as well: that would be two connections to one line",
					called("device", d.Name), quote(redact(url)), called("device", l.cfg.Devices[other].Name))
			}
		}
	}
}

// driverErrors reports the mistakes that a driver returned, however they are joined.
func (l *loader) driverErrors(members []int, err error) {
	switch e := err.(type) {
	case *drivers.ConfigError:
		l.driverError(members, e)
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			l.driverErrors(members, one)
		}
	default:
		if inner, ok := err.(interface{ Unwrap() error }); ok && inner.Unwrap() != nil {
			l.driverErrors(members, inner.Unwrap())
			return
		}
		l.driverError(members, &drivers.ConfigError{Group: -1, Tag: -1, Field: "url", What: err.Error()})
	}
}

// driverError reports one mistake at the place of the key that it is about, unless this package has already
// found fault with that key.
func (l *loader) driverError(members []int, e *drivers.ConfigError) {
	dev := members[0]
	if e.Device >= 0 && e.Device < len(members) {
		dev = members[e.Device]
	}
	d, place := &l.cfg.Devices[dev], &l.places[dev]
	at, reported := place.field(l, e.Field)
	what := called("device", d.Name)
	if e.Group >= 0 && e.Group < len(place.groups) {
		g := &place.groups[e.Group]
		at, reported = g.field(l, e.Field)
		what += ", " + called("group", d.Groups[e.Group].Name)
		if e.Tag >= 0 && e.Tag < len(g.tags) {
			t := g.tag(e.Tag)
			at, reported = t.field(l, e.Field)
			what = called("device", d.Name) + ", " + called("tag", d.Groups[e.Group].Tags[e.Tag].Name)
		}
	}
	switch {
	case reported:
		return
	case l.full():
		l.errorf(at, "", "")
		return
	}
	mend := l.scrub(e.Mend)
	if mend == "" {
		mend = fmt.Sprintf("see drivers/%s/README.md", d.Driver)
	}
	l.errorf(at, mend, "%s: %s", what, l.scrub(e.What))
}

// scrub blacks out expanded values: what came from ${env:...} or ${file:...} may be a secret.
func (l *loader) scrub(s string) string {
	for _, secret := range l.secrets {
		s = strings.ReplaceAll(s, secret, mask)
	}
	return s
}

// String returns how a plan or page may name a connection: its protocol and url without user and password.
func (c Connection) String() string {
	return fmt.Sprintf("%s %s", c.Protocol.Name, redact(c.Connection.URL))
}
