package config

import (
	"fmt"
	"iter"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"millrace/drivers"
)

// tables are the keys of every level that this package reads by hand. They are made once per Load.
type tables struct {
	top         *table[Config]
	destination *table[Destination]
	write       *table[writeDraft]
	device      *table[deviceDraft]
	group       *table[groupDraft]
	tag         *table[tagDraft]
}

func newTables() tables {
	t := tables{destination: destinationTable(), write: writeTable(), tag: tagTable()}
	t.group = groupTable(t.tag)
	t.device = deviceTable(t.group)
	t.top = topTable(&t)
	return t
}

// home says where a key belongs that stands in the wrong place, "" when it belongs nowhere.
func (l *loader) home(word, in string) string {
	var homes []string
	add := func(home string) {
		if home != in && !slices.Contains(homes, home) {
			homes = append(homes, home)
		}
	}
	l.tables.top.section().walk(func(s *section) {
		if slices.ContainsFunc(s.entries, func(e entry) bool { return e.name == word }) {
			add(s.in)
		}
	})
	for i := range l.protocols {
		l.tables.top.section().walk(func(s *section) {
			if hasOption(s.options.of(&l.protocols[i]), word) {
				add(strings.Replace(s.in+" of a device with driver: ", "a device of a device", "a device", 1) + l.protocols[i].Name)
			}
		})
	}
	if len(homes) == 0 {
		return ""
	}
	return fmt.Sprintf("%q is a key of %s", word, orList(homes))
}

// walk calls f for a section and for those below it.
func (s *section) walk(f func(*section)) {
	f(s)
	for i := range s.entries {
		if below := s.entries[i].form.section; below != nil {
			below.walk(f)
		}
	}
}

func topTable(t *tables) *table[Config] {
	none := func(*Config) string { return "" }
	top := &table[Config]{in: "the top level", keys: []key[Config]{
		{name: "gateway", show: "press-shop", need: `"gateway: press-shop"; the name stands in every topic and message`, help: "stands in every topic and message",
			restart: true, kind: nameKind(func(c *Config) *string { return &c.Gateway }, true)},
		// The window drains in a round trip or two; below the 30 s (Kubernetes) and 90 s (systemd) before a kill.
		{name: "grace_time", def: "10s", help: "how long a stop may take to publish what was read",
			kind: durationKind(func(c *Config) *time.Duration { return &c.GraceTime }, true, 0, maxGraceTime)},
		{name: "processors", def: "0", help: "GOMAXPROCS, 0 = follow the machine", restart: true, kind: intKind(func(c *Config) *int { return &c.Processors }, 0, maxProcessors)},
		{name: "log", kind: partKind(logTable(), func(c *Config) *Log { return &c.Log })},
		{name: "web", help: "page, /healthz, /readyz, /metrics and the API that reads", kind: partKind(webTable(), func(c *Config) *Web { return &c.Web })},
		{name: "buffer", help: "keeps every record until all destinations have acknowledged it", restart: true, kind: partKind(bufferTable(), func(c *Config) *Buffer { return &c.Buffer })},
		{name: "pki", help: "certificates of OPC UA servers and of this gateway", kind: partKind(pkiTable(), func(c *Config) *PKI { return &c.PKI })},
		{name: "include", show: "- devices/*.yaml", help: "more files, folders (*.yaml, *.yml in them) or patterns, one or a list. Each file holds any of these keys, or just a list of devices",
			kind: kind[Config]{set: func(l *loader, f field, _ *Config) bool { l.includes(f); return true }, get: none, form: form{schema: schema{"type": []string{"array", "string"}}}}},
		{name: "destinations", need: `"destinations:" with a list of brokers`, help: "1 to 16 brokers",
			kind: listKind(t.destination, func(c *Config) iter.Seq[*Destination] { return pointers(c.Destinations) },
				func(l *loader, f field, _ *Config) { l.several(f, l.readDestination) })},
		{name: "writes", help: "what may be written to equipment and called there; nothing by default",
			kind: listKind(t.write, func(c *Config) iter.Seq[*writeDraft] {
				return drafts(c.Writes, func(w *Write) *writeDraft { return &writeDraft{Write: *w, limitsDraft: limitsDraft{Limits: w.Limits}} })
			}, func(l *loader, f field, _ *Config) { l.several(f, l.readWrite) })},
		{name: "devices", need: `"devices:" with a list, or include files of devices`, help: "equipment",
			kind: listKind(t.device, func(c *Config) iter.Seq[*deviceDraft] {
				return drafts(c.Devices, func(d *Device) *deviceDraft { return &deviceDraft{Device: *d, protocol: c.protocol(d.Driver)} })
			}, func(l *loader, f field, _ *Config) { l.several(f, l.readDevice) })},
	}}
	for i := range top.keys {
		if k := &top.keys[i]; !k.form.list && k.name != "include" {
			k.set = once(k.set)
		}
	}
	return top
}

func pointers[T any](list []T) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for i := range list {
			if !yield(&list[i]) {
				return
			}
		}
	}
}

// drafts yields what the tables know the items of a list as.
func drafts[T, D any](list []T, draft func(*T) *D) iter.Seq[*D] {
	return func(yield func(*D) bool) {
		for i := range list {
			if !yield(draft(&list[i])) {
				return
			}
		}
	}
}

// once makes a top-level key refuse to be set by a second file.
func once(set func(*loader, field, *Config) bool) func(*loader, field, *Config) bool {
	return func(l *loader, f field, c *Config) bool {
		if f.k.n == nil { // a default
			return set(l, f, c)
		}
		if first, ok := l.set[f.name]; ok {
			l.errorf(l.at(f.k), "delete one of them", "%s is already set at %s", f.name, l.position(first))
			return false
		}
		l.set[f.name] = l.at(f.k)
		return set(l, f, c)
	}
}

// several reads a top-level list, which each file may have.
func (l *loader) several(f field, read func(value)) {
	l.set[f.name] = l.at(f.k)
	l.list(f, read)
}

// readRoot reads a whole file: the top-level keys, or just a list of devices.
func (l *loader) readRoot(v value) {
	if v.n.Kind == yaml.SequenceNode && v.file > 0 {
		l.set["devices"] = l.at(v)
		l.each(v, l.readDevice)
		return
	}
	l.unread = l.unread || v.n.Kind != yaml.MappingNode
	l.meant |= read(l, v, l.tables.top, l.cfg, hooks{})
}

func (l *loader) includes(f field) {
	if f.v.n.Kind == yaml.ScalarNode {
		l.include(f)
		return
	}
	l.list(f, func(v value) {
		l.include(field{name: f.name, in: f.in, k: f.k, v: v})
	})
}

func logTable() *table[Log] {
	return &table[Log]{in: "log", flow: true, keys: []key[Log]{
		{name: "level", def: "info", kind: choiceKind(func(g *Log) *string { return &g.Level }, "debug", "info", "warn", "error")},
		{name: "format", def: "text", restart: true, kind: choiceKind(func(g *Log) *string { return &g.Format }, "text", "json")},
	}}
}

func webTable() *table[Web] {
	listen := textKind(func(w *Web) *string { return &w.Listen }, maxText)
	listen.set = func(l *loader, f field, w *Web) bool { l.note(f); return l.listen(f, &w.Listen) }
	return &table[Web]{in: "web", flow: true, keys: []key[Web]{
		{name: "enabled", def: "true", kind: boolKind(func(w *Web) *bool { return &w.Enabled })},
		// Loopback: nothing is open to the plant network unless asked for.
		{name: "listen", def: "127.0.0.1:9280", help: `host:port. Loopback only; ":9280" opens it to the network, without a password`, kind: listen},
	}}
}

// listen reads host:port, where the host may be left out.
func (l *loader) listen(f field, dst *string) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	const mend = "write host:port, such as 127.0.0.1:9280, or :9280 for all interfaces"
	host, port, err := net.SplitHostPort(s)
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 {
		l.errorf(l.at(f.v), mend, "%s %s is not an address to listen on", f.name, quote(f.v.n.Value))
	} else if strings.ContainsAny(host, " /") || drivers.NoHost(host) {
		l.errorf(l.at(f.v), mend, "%s %s has no valid host", f.name, quote(f.v.n.Value))
	} else {
		*dst = s
		return true
	}
	return false
}

func bufferTable() *table[Buffer] {
	return &table[Buffer]{in: "buffer", keys: []key[Buffer]{
		{name: "path", def: "data", help: "folder, made when missing; of this gateway alone", kind: pathKind(func(b *Buffer) *string { return &b.Path })},
		// Days of outage at 1,000 readings/s, and fits the smallest edge flash (8 GB) beside the system.
		{name: "max_size", def: "2GiB", help: "on disk, never exceeded; one record, such as a long text, takes at most 1/64 of it", kind: sizeKind(func(b *Buffer) *int64 { return &b.MaxSize }, false, minBufferSize, maxBufferSize)},
		// Clouds refuse much older data (SiteWise: 7 days), but a month survives any holiday.
		{name: "max_age", def: "30d", help: "older records are dropped and counted, 0 = no limit",
			kind: durationKind(func(b *Buffer) *time.Duration { return &b.MaxAge }, true, minBufferAge, maxBufferAge)},
		// One fsync a second spares flash.
		{name: "commit_interval", def: "1s", help: "the most that a power cut can cost, 0 = on disk before it is published",
			kind: durationKind(func(b *Buffer) *time.Duration { return &b.CommitInterval }, true, minCommitInterval, maxCommitInterval)},
		// After a long outage the present is worth more than its beginning.
		{name: "when_full", def: string(DropOldest), help: "either way it is counted and the gap published; drop-newest refuses for a destination that is away, not for the others",
			kind: choiceKind(func(b *Buffer) *WhenFull { return &b.WhenFull }, DropOldest, DropNewest)},
		// A few seconds at 50,000 readings/s, so that the live path reads nothing back from disk.
		{name: "memory", def: "8MiB", help: "recent records kept in memory, in effect at most 1/32 of max_size; one record takes at most half of it",
			kind: sizeKind(func(b *Buffer) *int64 { return &b.Memory }, false, minMemory, maxMemory)},
	}}
}

func pkiTable() *table[PKI] {
	return &table[PKI]{in: "pki", flow: true, keys: []key[PKI]{
		{name: "path", def: "pki", help: "folder, made when missing, with own/, trusted/, issuers/ and rejected/; see drivers/opcua/README.md", kind: pathKind(func(p *PKI) *string { return &p.Path })},
	}}
}

// note remembers where a key stands, for when all is read.
func (l *loader) note(f field) { l.noted[f.in+"."+f.name] = f }

// pathKind is a path that starts at the folder of its file.
func pathKind[T any](at func(*T) *string) kind[T] {
	k := then(textKind(at, maxText), func(l *loader, f field, v *T) {
		*at(v) = beside(l.files[f.v.file], *at(v))
		l.note(f)
	})
	k.get = func(v *T) string { // whole, so that what is printed means the same wherever it is kept
		if path, err := filepath.Abs(*at(v)); err == nil && *at(v) != "" {
			return text(path)
		}
		return given(*at(v))
	}
	return k
}
