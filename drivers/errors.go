package drivers

import (
	"errors"

	"millrace/drivers/peer"
)

// ErrDevice marks an error that concerns one device only: see Driver.Read.
var ErrDevice = errors.New("device gives no usable answer")

// ErrAbsent marks an error that wraps ErrDevice too: the device itself has to make the connection and has not. To read
// again costs nothing, so the poller does at each tick.
// It is also how Connect says that it has waited for the device: it is called again soon.
var ErrAbsent = errors.New("the device is not there")

// ErrLink marks an error of Writer.Write or Caller.Call that means the link is down.
var ErrLink = errors.New("connection is down")

// ErrClosed marks an error of Driver.Read that means the peer had closed the connection. Those of the network (peer.Closed) say
// the same. Where the connection was idle before, the poller connects again and
// reads once more within the same poll.
var ErrClosed = errors.New("the device closed the connection")

// IsClosed reports whether an error means that the peer has ended an established connection.
func IsClosed(err error) bool {
	return errors.Is(err, ErrClosed) || peer.Closed(err)
}

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
