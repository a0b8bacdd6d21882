package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"

	"millrace/drivers/telemetry"
)

// tables are the keys of every level. They are made once per Load.
type tables struct {
	top          *table[Config]
	log          *table[Log]
	web          *table[Web]
	buffer       *table[Buffer]
	destination  *table[Destination]
	backlogLimit *table[BacklogLimit]
	tls          *table[TLS]
	retry        *table[Retry]
	write        *table[writeDraft]
	labels       *table[[]telemetry.Label]
	device       *table[deviceDraft]
	group        *table[groupDraft]
	tag          *table[tagDraft]
}

func newTables() tables {
	return tables{
		top: topTable(), log: logTable(), web: webTable(), buffer: bufferTable(),
		destination: destinationTable(), backlogLimit: backlogLimitTable(), tls: tlsTable(), retry: retryTable(), write: writeTable(), labels: labelsTable(),
		device: deviceTable(), group: groupTable(), tag: tagTable(),
	}
}

// level is the keys of one level by name.
type level struct {
	in   string
	keys []string
}

func (t *tables) levels() []level {
	return []level{
		{t.top.in, t.top.names()}, {t.log.in, t.log.names()}, {t.web.in, t.web.names()},
		{t.buffer.in, t.buffer.names()}, {t.destination.in, t.destination.names()},
		{t.backlogLimit.in, t.backlogLimit.names()}, {t.tls.in, t.tls.names()}, {t.retry.in, t.retry.names()}, {t.write.in, t.write.names()},
		{t.device.in, t.device.names()}, {t.group.in, t.group.names()}, {t.tag.in, t.tag.names()},
	}
}

// home says where a key belongs that stands in the wrong place, "" when it belongs nowhere.
func (l *loader) home(word, in string) string {
	var homes []string
	for _, lv := range l.tables.levels() {
		for _, k := range lv.keys {
			if k == word && lv.in != in {
				homes = append(homes, lv.in)
			}
		}
	}
	for _, p := range l.protocols {
		for _, o := range p.DeviceOptions {
			if o.Name == word {
				homes = append(homes, "a device with driver: "+p.Name)
			}
		}
		for _, o := range p.TagOptions {
			if o.Name == word {
				homes = append(homes, "a tag of a device with driver: "+p.Name)
			}
		}
	}
	if len(homes) == 0 {
		return ""
	}
	return fmt.Sprintf("%q is a key of %s", word, orList(homes))
}

func topTable() *table[Config] {
	return &table[Config]{in: "the top level", keys: []key[Config]{
		{name: "gateway", set: once(func(l *loader, f field, c *Config) { l.name(f, &c.Gateway, true) })},
		{name: "include", set: func(l *loader, f field, _ *Config) { l.includes(f) }},
		{name: "grace_time", set: once(func(l *loader, f field, c *Config) {
			l.duration(f, &c.GraceTime, true, 0, maxGraceTime)
		})},
		{name: "processors", set: once(func(l *loader, f field, c *Config) { l.integer(f, &c.Processors, 0, maxProcessors) })},
		{name: "log", set: once(func(l *loader, f field, c *Config) { read(l, f.v, l.tables.log, &c.Log, hooks{}) })},
		{name: "web", set: once(func(l *loader, f field, c *Config) { read(l, f.v, l.tables.web, &c.Web, hooks{}) })},
		{name: "buffer", set: once(func(l *loader, f field, c *Config) { read(l, f.v, l.tables.buffer, &c.Buffer, hooks{}) })},
		{name: "destinations", set: func(l *loader, f field, _ *Config) { l.several(f, l.readDestination) }},
		{name: "devices", set: func(l *loader, f field, _ *Config) { l.several(f, l.readDevice) }},
		{name: "writes", set: func(l *loader, f field, _ *Config) { l.several(f, l.readWrite) }},
	}}
}

// once makes a top-level key refuse to be set by a second file.
func once(set func(*loader, field, *Config)) func(*loader, field, *Config) {
	return func(l *loader, f field, c *Config) {
		if first, ok := l.set[f.name]; ok {
			l.errorf(l.at(f.k), "delete one of them", "%s is already set at %s", f.name, l.position(first))
			return
		}
		l.set[f.name] = l.at(f.k)
		set(l, f, c)
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
	return &table[Log]{in: "log", keys: []key[Log]{
		{name: "level", set: func(l *loader, f field, g *Log) {
			choice(l, f, &g.Level, "debug", "info", "warn", "error")
		}},
		{name: "format", set: func(l *loader, f field, g *Log) { choice(l, f, &g.Format, "text", "json") }},
	}}
}

func webTable() *table[Web] {
	return &table[Web]{in: "web", keys: []key[Web]{
		{name: "enabled", set: func(l *loader, f field, w *Web) { l.boolean(f, &w.Enabled) }},
		{name: "listen", set: func(l *loader, f field, w *Web) { l.listen(f, &w.Listen) }},
	}}
}

// listen reads host:port, where the host may be left out.
func (l *loader) listen(f field, dst *string) {
	s, ok := l.text(f)
	if !ok {
		return
	}
	const mend = "write host:port, such as 127.0.0.1:9280, or :9280 for all interfaces"
	host, port, err := net.SplitHostPort(s)
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 {
		l.errorf(l.at(f.v), mend, "%s %s is not an address to listen on", f.name, quote(f.v.n.Value))
	} else if strings.ContainsAny(host, " /") {
		l.errorf(l.at(f.v), mend, "%s %s has no valid host", f.name, quote(f.v.n.Value))
	} else {
		*dst = s
	}
}

func bufferTable() *table[Buffer] {
	return &table[Buffer]{in: "buffer", keys: []key[Buffer]{
		{name: "path", set: func(l *loader, f field, b *Buffer) {
			if l.short(f, &b.Path, maxText) {
				b.Path = beside(l.files[f.v.file], b.Path)
			}
		}},
		{name: "max_size", set: func(l *loader, f field, b *Buffer) {
			l.size(f, &b.MaxSize, false, minBufferSize, maxBufferSize)
		}},
		{name: "max_age", set: func(l *loader, f field, b *Buffer) {
			l.duration(f, &b.MaxAge, true, minBufferAge, maxBufferAge)
		}},
		{name: "commit_interval", set: func(l *loader, f field, b *Buffer) {
			l.duration(f, &b.CommitInterval, true, minCommitInterval, maxCommitInterval)
		}},
		{name: "when_full", set: func(l *loader, f field, b *Buffer) {
			choice(l, f, &b.WhenFull, DropOldest, DropNewest)
		}},
		{name: "memory", set: func(l *loader, f field, b *Buffer) {
			l.size(f, &b.Memory, false, minMemory, maxMemory)
		}},
	}}
}
