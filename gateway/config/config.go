// Package config owns the config file: it loads it, fills in defaults and checks everything that can be
// checked without a network. cmd/millrace calls Load; package gateway runs what Load returns.
//
// It promises that a config that loads is complete and within its bounds, that all mistakes of a config are
// reported at once, each as `file:line:col: what; how to mend it`, and that no secret appears in a message.
// The keys are described in README.md beside this file.
package config

import (
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Config is one checked configuration with every default filled in. It is read-only once loaded:
// devices share the texts and option maps that they have in common.
type Config struct {
	File    string   // the path that Load was given
	Files   []string // File and every included file, in the order of reading
	Gateway string   // the name in every topic and message

	GraceTime  time.Duration // how long a stop may take to drain; >= 0
	Processors int           // GOMAXPROCS; 0 = follow the machine; at most 1024

	Log          Log
	Web          Web
	Buffer       Buffer
	PKI          PKI
	Destinations []Destination // at least one
	Devices      []Device      // at least one
	Writes       []Write       // what may be written to equipment; nil = nothing

	Warnings []*Error // what is no mistake and that a person should know; at most 100

	protocols []drivers.Protocol
}

// Log says what the gateway logs. Flags of the command line come before it.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // text or json
}

// Web says where the page, /healthz and /metrics are served.
type Web struct {
	Enabled bool
	Listen  string // host:port; the host may be empty for all interfaces
}

// WhenFull says what the buffer drops at its size limit.
type WhenFull string

// The policies of a full buffer.
const (
	DropOldest WhenFull = "drop-oldest"
	DropNewest WhenFull = "drop-newest"
)

// Buffer says where and how records are kept until every destination has acknowledged them.
type Buffer struct {
	Path           string        // directory, absolute or relative to the working directory of the process
	MaxSize        int64         // bytes on disk
	MaxAge         time.Duration // 0 = no limit
	CommitInterval time.Duration // the power-cut window; 0 = fsync before publishing
	WhenFull       WhenFull
	Memory         int64 // bytes of recent records kept in memory
}

// PKI says where the certificates are of protocols whose devices are trusted by them (OPC UA).
type PKI struct {
	Path string // directory, absolute or relative to the working directory of the process; each device of such a protocol has it absolute
}

// Order says which records a destination is sent first after an outage.
type Order string

// The orders of publishing.
const (
	LiveFirst   Order = "live-first"
	OldestFirst Order = "oldest-first"
)

// Start says where a destination that is new to the buffer begins.
type Start string

// The starts of a new destination.
const (
	StartNow    Start = "now"
	StartOldest Start = "oldest"
)

// Destination is one broker to publish to.
type Destination struct {
	Name     string
	URL      string // scheme://host:port, with the port filled in; ws and wss may have a path
	ClientID string // not empty
	Username string // "" = log in without one
	Password Secret
	Topic    string // template: text and {gateway}, {device}, {group}
	Format   string // json
	Order    Order
	Start    Start

	Window           int           // records in flight; >= 1
	MaxInFlightBytes int64         // bytes of payload in flight
	MaxMessage       int64         // bytes; a larger payload goes to quarantine unsent; 0 = no limit known
	BacklogLimit     BacklogLimit  // cap of the backlog lane
	KeepAlive        time.Duration // MQTT keep-alive; whole seconds
	AckTimeout       time.Duration // silence of the broker after which a session is given up and sent again; 1s to 10m
	Retry            Retry         // wait between two connects
	TLS              TLS
	Int64AsString    bool // integers beyond 2^53 are published as JSON strings
}

// Retry bounds the wait before connecting again, which grows from Min to Max while connecting fails; 100ms to 1h each,
// Min at most Max.
type Retry struct{ Min, Max time.Duration }

// BacklogLimit caps how fast a backlog drains; 0 = no cap.
type BacklogLimit struct {
	Messages float64 // per second
	Bytes    int64   // per second
}

// TLS names the files of an mqtts or wss destination. They are read again at every connect, so that a
// renewed certificate needs no restart; "" = not given. Load has checked that they can be read and parsed.
type TLS struct {
	CA         string // PEM of the authorities to trust instead of the system's
	Cert       string // PEM of the client certificate
	Key        string // PEM of its key
	ServerName string // name to verify instead of the url's host
}

// Device is one piece of equipment and the word after its `driver:`.
type Device struct {
	Name        string
	Driver      string
	URL         string
	Spares      []string          // other urls of the same line, in the order in which they are taken; nil for none
	Timeout     time.Duration     // one request
	Retry       Retry             // wait between two connects
	Description string            // "" for none; at most 256 bytes
	Labels      []telemetry.Label // sorted by name, nil for none; at most 64 of 256 bytes each
	Options     map[string]string // the driver's own keys, nil for none; shared, read-only
	Groups      []Group
}

// Group is a poll group and how its tags are reported. The Options maps of its tags are shared, read-only.
type Group struct {
	drivers.Group
	Report  []TagReport   // nil = every tag always; else one for each tag
	Clamps  map[int]Range // by tag: a scaled value beyond it becomes its end, and uncertain
	Derived []Derived     // tags that no driver reads
	// By tag, those of Derived after those that are read: record one value of each window rather than every reading.
	Aggregates map[int]Aggregate

	Selects  bool      // it has a rule that selects tags when the device is there: see drivers.Protocol.Rule
	Selected TagReport // how these are reported
}

// Aggregate is min, max, mean or rate over a window; the zero value is none.
type Aggregate struct {
	Kind string
	Over time.Duration // from the group's interval to 1d
}

// Range is from Low to High, both included.
type Range struct{ Low, High float64 }

// Derived is a tag worked out from others of its device at each poll of its group, after they are scaled. Its own scale and
// offset are 0.
type Derived struct {
	telemetry.Tag
	Expr   string // compiles, see package derive
	Report TagReport
}

// TagReport says which readings of one tag are worth a place in a record. The zero value is every reading.
type TagReport struct {
	OnChange        bool          // only when value, quality or reason differ from the last one reported
	Deadband        float64       // change of a number that does not count; absolute, or percent of the last reported value
	DeadbandPercent bool          // Deadband is in percent
	Heartbeat       time.Duration // report at least this often though unchanged; 0 = never
}

// NeedRestart returns the keys in which next differs from c and which cannot change while a gateway runs.
func (c *Config) NeedRestart(next *Config) []string { return newTables().top.fixed("", false, c, next) }

// Connection is one link to the plant: the protocol that serves it and what drivers.Protocol.New takes.
type Connection struct {
	Protocol   drivers.Protocol
	Connection drivers.Connection
	Devices    []*Device // the same devices as in Connection, with their reports
}

// Connections returns the links that the devices need, in the order of their first device. Devices with the
// same url share one link where their protocol allows it.
func (c *Config) Connections() []Connection {
	var conns []Connection
	for _, members := range c.links() {
		conns = append(conns, c.connection(members))
	}
	return conns
}

// links returns the indexes of the devices of each connection.
func (c *Config) links() [][]int {
	type link struct{ driver, url, apart string }
	at := map[link]int{}
	var links [][]int
	for i := range c.Devices {
		d := &c.Devices[i]
		if p := c.protocol(d.Driver); p != nil && p.Shares {
			line := link{driver: d.Driver, url: d.URL}
			if p.Normal != nil {
				line.url = p.Normal(d.URL)
			}
			if p.Apart != "" {
				line.apart = d.Options[p.Apart]
			}
			if j, ok := at[line]; ok {
				links[j] = append(links[j], i)
				continue
			}
			at[line] = len(links)
		}
		links = append(links, []int{i})
	}
	return links
}

func (c *Config) connection(members []int) Connection {
	first := &c.Devices[members[0]]
	conn := Connection{Connection: drivers.Connection{URL: first.URL}}
	if p := c.protocol(first.Driver); p != nil {
		conn.Protocol = *p
	}
	for _, i := range members {
		d := &c.Devices[i]
		groups := make([]drivers.Group, len(d.Groups))
		for j := range d.Groups {
			groups[j] = d.Groups[j].Group
		}
		for _, o := range conn.Protocol.ConnectionOptions {
			if text, ok := d.Options[o.Name]; ok {
				if conn.Connection.Options == nil {
					conn.Connection.Options = map[string]string{}
				}
				conn.Connection.Options[o.Name] = text
			}
		}
		conn.Devices = append(conn.Devices, d)
		conn.Connection.Devices = append(conn.Connection.Devices, drivers.Device{
			Name: d.Name, URL: d.URL, Spares: d.Spares, Timeout: d.Timeout, Options: d.Options, Groups: groups,
		})
	}
	return conn
}

func (c *Config) protocol(name string) *drivers.Protocol {
	for i := range c.protocols {
		if c.protocols[i].Name == name {
			return &c.protocols[i]
		}
	}
	return nil
}
