// Package drivers says what a driver is: the one interface between a protocol and the gateway.
//
// A driver is one folder, one Protocol value and one line in cmd/millrace/drivers.go; there is no
// registration. The conformance suite that each driver passes is package drivertest.
package drivers

import (
	"context"
	"fmt"
	"time"

	"millrace/drivers/telemetry"
)

// Protocol is what a driver package exports: its name, its own config keys and its constructor.
type Protocol struct {
	Name          string   // the word after `driver:`
	DeviceOptions []Option // keys of a device beyond the common ones (name, driver, url, timeout, groups)
	TagOptions    []Option // keys of a tag beyond the common ones (name, address, type, scale, offset, unit)
	Shares        bool     // devices with the same url share one connection (Modbus unit ids behind one gateway)

	// New parses every address and plans the requests. It does not touch the network, so that
	// `check` and `plan` need no plant. All mistakes come back at once: errors.Join of *ConfigError.
	New func(Connection) (Driver, error)
}

// Option is one config key that only this driver knows. Values arrive as the text of the YAML scalar.
type Option struct {
	Name string
	Help string // one line for `millrace drivers`, with unit, bounds and default
}

// Connection is what one Driver serves: one link and the devices reached over it (one device, unless
// the protocol Shares).
type Connection struct {
	URL     string
	Devices []Device
}

// Device is one piece of equipment as the config describes it.
type Device struct {
	Name    string
	URL     string
	Timeout time.Duration     // one request; > 0
	Options map[string]string // the driver's own keys, nil for none
	Groups  []Group
}

// Group is a poll group: the tags of one device read at one interval.
type Group struct {
	Name     string
	Interval time.Duration // > 0
	Tags     []telemetry.Tag
}

// Ref names one poll group of a connection by its indexes.
type Ref struct{ Device, Group int }

// Driver serves one connection. One goroutine calls it, so it needs no locks. It never logs and never
// starts a goroutine that outlives Close, but for a dial that its library cannot interrupt: one at the most, for
// seconds at the most. Everything that a peer sends is bounded.
type Driver interface {
	// Connect opens the link; it may be called again after Close. It respects ctx.
	Connect(ctx context.Context) error

	// Read polls the group once and appends exactly one reading for each of its tags to dst, in the
	// order of the tags, values raw (not scaled). A tag that cannot be read is a bad reading with a
	// reason. On a nil error every tag is answered for.
	//
	// An error means that no tag of the group could be read; nothing is appended then. An error that
	// wraps ErrDevice says that only this device failed (a dead unit id): the link is good, or Read
	// has mended it itself. Every other error means the link is down: the caller closes and connects again.
	Read(ctx context.Context, g Ref, dst []telemetry.Reading) ([]telemetry.Reading, error)

	// Close releases the link and may be called at any time, also twice or without Connect.
	Close() error
}

// Subscriber is a driver that can be pushed readings by the device (OPC UA subscriptions).
// The poller asks for it by type assertion.
type Subscriber interface {
	// Subscribe runs until ctx ends or the link fails, and calls emit with the readings of each
	// notification. emit's slice is valid only during the call.
	Subscribe(ctx context.Context, g Ref, emit func([]telemetry.Reading) error) error
}

// Planner is a driver that can say in words which requests a poll of the group makes.
type Planner interface {
	// Plan returns one line a request, for example "read holding 100-148 (49 registers, 20 tags)".
	Plan(g Ref) []string
}

// ErrDevice marks an error of Read that concerns one device only: see Driver.Read.
var ErrDevice = fmt.Errorf("device does not answer")

// ConfigError is one mistake in the config that only the driver can see. Group and Tag are -1 where the
// mistake is not in a group or tag. Field is the config key ("address", "type", "unit", an option's name).
type ConfigError struct {
	Device, Group, Tag int
	Field              string
	What               string // what is wrong: `address "holding:70000": register 70000 is over 65535`
	Mend               string // how to mend it: `use 0 to 65535`
}

// Error returns the mistake and its mend in one line.
func (e *ConfigError) Error() string {
	if e.Mend == "" {
		return e.What
	}
	return e.What + "; " + e.Mend
}
