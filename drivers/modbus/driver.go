// Package modbus reads and writes Modbus devices on every transport: it plans the requests of each poll group, reads each
// block with one request, decodes the registers itself, and isolates what a device refuses.
//
// It promises that no value is ever given to a wrong register or device: an answer is taken only when unit, function, length
// and transaction id or checksum are those of the request, and where no transaction id protects, only when no late answer can
// be taken for it (fence.go) and, once another master was heard, only where no other answer came beside it. One bad register costs
// nothing but itself (learn.go), one dead unit id costs its line one timeout a poll.
//
// gateway/poller calls it, one goroutine for each connection. DESIGN.md says why it is as it is.
package modbus

import (
	"context"
	"slices"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Protocol is the driver "modbus". Devices on the same line share one connection.
func Protocol() drivers.Protocol {
	shared := new(listeners)
	return drivers.Protocol{
		Name:              "modbus",
		ConnectionOptions: connectionOptions(),
		DeviceOptions:     deviceOptions(),
		TagOptions:        tagOptions(),
		Example: drivers.Example{
			Device: "press-1", URL: "tcp://192.168.1.10:502", URLHelp: "tcp, tcp+tls, udp, rtu, rtuovertcp, rtuoverudp, ascii, tcp-listen and more, see drivers/modbus/README.md",
			Address: "holding:100", AddressHelp: "coil:, discrete:, input:, holding: from 0; holding:100.3 is a bit; 40101",
			Type: "float32", TypeHelp: "default bool for a coil or bit, else uint16; see drivers/modbus/README.md",
		},
		Shares:      true,
		Redundant:   true,
		Normal:      Normal,
		Apart:       "registration",
		Connections: "connections",
		Identity:    []string{"unit", "registration"},
		New: func(c drivers.Connection) (drivers.Driver, error) {
			d, err := newDriver(&c, time.Now)
			if err != nil {
				return nil, err
			}
			d.link.listeners = shared
			return d, nil
		},
	}
}

// driver serves one connection.
type driver struct {
	link   link
	units  []*unit
	guests []*unit    // that the config does not have, of tools that ask
	groups [][]*group // by device and group
	now    func() time.Time
	poll   poll    // the present Read, kept for its slices
	query  request // the present request
	pdu    [maxPDU]byte
	shown  shown
	lanes  lanes
}

func newDriver(c *drivers.Connection, now func() time.Time) (*driver, error) {
	r := &reporter{group: -1, tag: -1}
	d := &driver{now: now, groups: make([][]*group, len(c.Devices))}
	d.shown = shown{learned: make([]map[string]string, len(c.Devices)), forget: make([]bool, len(c.Devices))}
	d.link.dialer, d.link.number = dialSocket, uint16(time.Now().UnixNano())
	d.link.parse(c, r)
	d.lanes.all = make([]lane, d.link.connections-1)
	for i := range d.lanes.all {
		d.lanes.all[i].link.number = d.link.number + uint16(i+1)<<13
	}
	for i := range c.Devices {
		r.device, r.group, r.tag = i, -1, -1
		u := &unit{settings: parseDevice(&c.Devices[i], &d.link, r), timeout: c.Devices[i].Timeout}
		d.units = append(d.units, u)
		for j := range c.Devices[i].Groups {
			r.group = j
			fields := parseGroup(&c.Devices[i].Groups[j], &u.settings, r)
			if len(r.errs) == 0 {
				d.groups[i] = append(d.groups[i], newGroup(fields, u))
			}
		}
	}
	return d, r.err()
}

func parseGroup(g *drivers.Group, dev *settings, r *reporter) []field {
	fields := make([]field, len(g.Tags))
	for i := range g.Tags {
		r.tag = i
		fields[i], _ = parseField(&g.Tags[i], dev, r)
	}
	r.tag = -1
	return fields
}

// Connect opens the line; one whose device calls is open at once. It ends with ctx, and after 5 s of its own accord.
func (d *driver) Connect(ctx context.Context) error {
	for _, u := range slices.Concat(d.units, d.guests) {
		d.opens(u)
	}
	if d.link.network == netListen {
		return d.link.listen(ctx)
	}
	return d.link.open(ctx)
}

// Certificates returns ours and the device's of a tcp+tls connection: see drivers.Certified.
func (d *driver) Certificates() []drivers.Certificate { return d.link.tls.Certificates() }

// opens notes that a unit may have been asked by another process just before, where no transaction id tells.
func (d *driver) opens(u *unit) {
	if d.link.framing != mbap {
		u.outstanding.opened(u.timeout, time.Now())
	}
}

// Close releases the line.
func (d *driver) Close() error {
	d.link.away = false
	d.lanes.close()
	err := d.link.close()
	d.link.deafen()
	return err
}

// Read polls a group: see drivers.Driver. It ends when ctx does.
func (d *driver) Read(ctx context.Context, ref drivers.Ref, dst []telemetry.Reading) ([]telemetry.Reading, error) {
	g := d.groups[ref.Device][ref.Group]
	n := len(dst)
	dst = slices.Grow(dst, g.tags)[:n+g.tags]
	if err := d.run(ctx, g, dst[n:]); err != nil {
		return dst[:n], err
	}
	return dst, nil
}

// TextSizes returns how long the texts of the group's tags can be: see drivers.Sized.
func (d *driver) TextSizes(ref drivers.Ref) []int {
	g := d.groups[ref.Device][ref.Group]
	sizes := make([]int, len(g.fields))
	for i := range g.fields {
		sizes[i] = g.fields[i].textSize()
	}
	return sizes
}

// DataTypes returns the types of the group's tags before scaling: see drivers.Typed.
func (d *driver) DataTypes(ref drivers.Ref) []telemetry.DataType {
	g := d.groups[ref.Device][ref.Group]
	types := make([]telemetry.DataType, len(g.fields))
	for i := range g.fields {
		types[i] = g.fields[i].data()
	}
	return types
}
