// Package opcua is the driver for OPC UA servers over opc.tcp. It owns addresses (node ids), the
// session with one server and the conversion of values, status codes and timestamps; see README.md.
//
// A secured server is trusted by the certificates of a PKI only: see trust.go.
// It promises: one node that cannot be read never costs the others; a server that does not answer
// within the device's timeout is an error, never a hang; nothing is reconnected behind the poller's
// back; a namespace given by URI is looked up after every connect; whatever a server sends costs its own
// readings at most, within the bounds of README.md. The poller calls it.
package opcua

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Protocol returns the driver as the gateway knows it, under the name "opcua". Each device has a
// connection of its own.
func Protocol() drivers.Protocol {
	shared := new(listeners)
	made := func(c drivers.Connection) (drivers.Driver, error) {
		d, err := newDriver(c)
		if err == nil && d.(*driver).set.reverse != nil {
			d.(*driver).set.reverse.listeners = shared
		}
		return d, err
	}
	return drivers.Protocol{Name: "opcua", DeviceOptions: deviceOptions(), GroupOptions: groupOptions(), TagOptions: tagOptions(), New: made, Normal: Normal, Identity: []string{"server_uri"}, Rule: ruleOption, Example: drivers.Example{
		Device: "cnc-1", URL: "opc.tcp://192.168.1.20:4840", URLHelp: "opc.tcp://host:port, perhaps with a path; opc.tcp-listen://:port for a server that calls",
		Address: "ns=2;s=Spindle.Speed", AddressHelp: "ns= or nsu=, then i=, s=, g= or b=; or a browse path such as /Objects/2:Machine/2:Speed; see drivers/opcua/README.md",
	}}
}

// driver serves one server: drivers.Driver, drivers.Subscriber, drivers.Writer and others that are optional.
type driver struct {
	set     settings
	groups  [][]group
	link    *link // nil when not connected
	most    int   // nodes a request may ask for, as far as known
	handles int   // nodes a request may register, likewise
	feed    *feed // what the server pushes; nil when not connected, or when all is polled
	parts   []telemetry.Reading
	lapses  atomic.Int32 // see maxLapses
	lost    lapsed
	longest int // values that an answer had of the history of a node
	finder  finder
	seek    time.Time // when to look next whether the namespaces are others: see renumber.go
	converter

	spaces   namespaces
	before   *census // nil = there was no connect yet
	news     string  // what has changed since
	failures int     // of the census

	unregistered atomic.Pointer[string] // why the server gives no handles in this session; nil = it does, as far as known

	models atomic.Uint64             // see Models
	deaf   atomic.Pointer[time.Time] // since when there is a session of which the server cannot say that its nodes have changed; nil = none
}

func newDriver(c drivers.Connection) (drivers.Driver, error) {
	if len(c.Devices) != 1 {
		return nil, fmt.Errorf("BUG: an OPC UA connection serves one device, not %d", len(c.Devices))
	}
	set, groups, err := parse(c)
	if err != nil {
		return nil, err
	}
	return &driver{set: set, groups: groups, most: defaultNodes, converter: converter{texts: statusTexts{}}, spaces: namespaces{used: indexesOf(groups), given: set.namespaces}}, nil
}

// Connect opens a new session and looks up what may differ from the last one: the server's limit
// of nodes a request and its namespaces.
func (d *driver) Connect(ctx context.Context) (err error) {
	defer caught(&err)
	d.hangUp()
	l, err := d.set.open(ctx)
	if err != nil {
		return err
	}
	d.link, d.most = l, defaultNodes
	if err := d.learn(ctx); err != nil {
		d.link.dead = true
		d.hangUp()
		return err
	}
	if d.set.subscribing != modeRead {
		d.feed = newFeed(l, &d.set)
		d.feed.finder, d.feed.reads = d.finder, min(d.most, maxVerified)
		d.feed.finder.call = d.feed.call
	}
	return nil
}

// Close ends the session, and stops to listen for calls of the server.
func (d *driver) Close() error {
	d.hangUp()
	d.set.reverse.leave()
	return nil
}

// hangUp ends the session. A server that answers is told, within a second.
func (d *driver) hangUp() {
	d.deaf.Store(nil)
	d.unregistered.Store(nil)
	for i := range d.groups {
		for j := range d.groups[i] {
			d.groups[i][j].walk = nil
		}
	}
	if d.feed != nil {
		d.feed.end()
		d.link.dead = d.link.dead || d.feed.silent
		d.feed = nil
	}
	if d.link != nil {
		d.link.close()
		d.link = nil
	}
}

// learn reads the server's limits and namespaces. A server that does not have them is none the
// worse; only a failing link is an error.
func (d *driver) learn(ctx context.Context) error {
	d.decode.types = d.link.types
	most, err := d.limit(ctx, id.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead)
	if err != nil {
		return fmt.Errorf("read the server's limits: %w", err)
	}
	d.most = most
	if d.set.register {
		if d.handles, err = d.limit(ctx, id.Server_ServerCapabilities_OperationLimits_MaxNodesPerRegisterNodes); err != nil {
			return fmt.Errorf("read the server's limits: %w", err)
		}
	}
	d.link.types.most, d.link.types.lapses, d.link.types.lost = d.most, &d.lapses, &d.lost
	names, reason := []string(nil), ""
	if d.usesURIs() || d.counts() {
		list, err := d.readOne(ctx, id.Server_NamespaceArray)
		if err != nil {
			return fmt.Errorf("read the server's namespaces: %w", err)
		}
		if list.Quality == telemetry.Bad {
			reason = "the server's list of namespaces cannot be read: " + list.Reason
		}
		names = texts(list.Value)
	}
	for i := range d.groups {
		for j := range d.groups[i] {
			if err := d.groups[i][j].resolve(names, reason); err != nil {
				return err
			}
		}
	}
	if err := d.findPaths(ctx, names, reason); err != nil {
		return err
	}
	d.models.Add(1)
	now := time.Now()
	d.deaf.Store(&now)
	d.spaces.look(names, now)
	d.doubt()
	d.seek = now.Add(asideTime)
	return d.notice(ctx, names)
}

// limit reads how many nodes a request may ask for, of the node that says so.
func (d *driver) limit(ctx context.Context, node uint32) (int, error) {
	most, err := d.readOne(ctx, node)
	if v := most.Value; v.Kind == telemetry.KindUint && v.Bits > 0 {
		return int(min(v.Bits, maxNodes)), err
	}
	return defaultNodes, err
}

// texts returns the elements of an array of texts; what is no text is "".
func texts(array telemetry.Value) (all []string) {
	if array.Kind == telemetry.KindArray {
		array.Elements(func(e telemetry.Value) bool {
			all = append(all, e.Text)
			return true
		})
	}
	return all
}

// readOne reads the value of one node of namespace 0. When the server refuses, the reading is bad.
func (d *driver) readOne(ctx context.Context, node uint32) (telemetry.Reading, error) {
	ask, err := valueOf(ua.NewNumericNodeID(0, node))
	if err != nil {
		return telemetry.Reading{}, fmt.Errorf("BUG: encode node id %d: %w", node, err)
	}
	v, err := d.alone(ctx, ask)
	switch {
	case err == nil:
		d.decode.ctx, d.decode.group = ctx, nil
		return d.reading(0, &v, wanted{}), nil
	case splittable(err):
		return telemetry.BadReading(0, 0, err.Error()), nil
	}
	return telemetry.Reading{}, err
}

func (d *driver) usesURIs() bool {
	for _, device := range d.groups {
		for i := range device {
			if device[i].rule != nil || slices.ContainsFunc(device[i].tags, func(t tag) bool { return t.addr.uri != "" || t.addr.kind == byPath || t.event != nil }) {
				return true
			}
		}
	}
	return false
}

// TextSizes returns how long the texts of the group's tags can be: see drivers.Sized.
func (d *driver) TextSizes(ref drivers.Ref) []int {
	g := &d.groups[ref.Device][ref.Group]
	sizes := make([]int, len(g.tags))
	for i := range g.tags {
		sizes[i] = g.tags[i].textSize()
	}
	return sizes
}
