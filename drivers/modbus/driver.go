// Package modbus reads Modbus devices: it plans the requests of each poll group, reads each block with
// one request, decodes the registers itself, and isolates what a device refuses.
//
// It promises that no value is ever given to a wrong register or device: after anything but a whole,
// matching answer the connection is closed and opened again, so that a late answer finds nobody. One bad
// register costs nothing but itself (learn.go), one dead unit id costs its line one timeout a poll.
//
// gateway/poller calls it, one goroutine for each connection. It is the only importer of its library,
// github.com/simonvetter/modbus.
package modbus

import (
	"context"
	"slices"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Protocol is the driver "modbus". Devices with the same url share one connection.
func Protocol() drivers.Protocol {
	return drivers.Protocol{
		Name:          "modbus",
		DeviceOptions: deviceOptions(),
		TagOptions:    tagOptions(),
		Shares:        true,
		New: func(c drivers.Connection) (drivers.Driver, error) {
			d, err := newDriver(&c, time.Now)
			if err != nil {
				return nil, err
			}
			return d, nil
		},
	}
}

// driver serves one connection.
type driver struct {
	link   link
	groups [][]*group // by device and group
	now    func() time.Time
	poll   poll // the present Read, kept for its slices
}

func newDriver(c *drivers.Connection, now func() time.Time) (*driver, error) {
	r := &reporter{group: -1, tag: -1}
	host, m := parseURL(c.URL)
	r.check("url", c.URL, m)
	d := &driver{link: newLink(host, timeout(c)), now: now, groups: make([][]*group, len(c.Devices))}
	for i := range c.Devices {
		r.device, r.group, r.tag = i, -1, -1
		dev := parseDevice(&c.Devices[i], r)
		for j := range c.Devices[i].Groups {
			r.group = j
			fields := parseGroup(&c.Devices[i].Groups[j], &dev, r)
			if len(r.errs) == 0 {
				d.groups[i] = append(d.groups[i], newGroup(fields, &dev))
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

// Connect dials the device. It ends with ctx, and after 5 s of its own accord.
func (d *driver) Connect(ctx context.Context) error { return d.link.open(ctx) }

// Close releases the connection.
func (d *driver) Close() error { return d.link.close() }

// Read polls a group: see drivers.Driver. It ends within one request's timeout of the end of ctx,
// because the library cannot be interrupted.
func (d *driver) Read(ctx context.Context, ref drivers.Ref, dst []telemetry.Reading) ([]telemetry.Reading, error) {
	g := d.groups[ref.Device][ref.Group]
	n := len(dst)
	dst = slices.Grow(dst, g.tags)[:n+g.tags]
	if err := d.run(ctx, g, dst[n:]); err != nil {
		return dst[:n], err
	}
	return dst, nil
}
