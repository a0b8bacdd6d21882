package gateway

import (
	"fmt"
	"math"
	"strconv"
	"sync"

	"millrace/gateway/config"
	"millrace/gateway/web"
)

// The last file descriptors below the process's limit are kept: no device gets the last 16, and no connection to the page
// or the local endpoint the last 10 of these. Those are for the store, which opens and closes segments, and for the brokers.
const (
	descriptorReserve = 16
	storeReserve      = 10
)

// pageShare is which part of the descriptors the page's connections may have at most: one in eight, and 4 to 64.
func pageShare(limit int) int {
	if limit == 0 {
		return web.MaxConnections
	}
	return min(max(limit/8, 4), web.MaxConnections)
}

// ownDescriptors is about what a gateway uses for itself: outputs, the runtime, the store's files, listeners.
const ownDescriptors = 24

// descriptors refuses to dial a device when the last file descriptors would go. Without a limit it refuses nothing.
type descriptors struct {
	limit func() int // of the process; 0 = none, or not known
	open  func() int // in use; 0 = not known

	mu       sync.Mutex
	used     int // at the last count, and one for each dial since; at first so many that they are counted
	dialling int
}

func newDescriptors() *descriptors {
	return &descriptors{limit: descriptorLimit, open: openDescriptors, used: math.MaxInt / 2}
}

// enter admits one attempt to connect, of a driver that opens n connections, which ends with leave. Counting is slow with many, so it is done only when the
// last count and the dials since come near the limit.
func (d *descriptors) enter(n int) (leave func(), err error) {
	limit := d.limit()
	if limit == 0 {
		return func() {}, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.take(n, limit-descriptorReserve) {
		return nil, fmt.Errorf("no file descriptor left for this device: the process may open %d, and the last %d are kept for the store, the brokers and the page; "+
			"raise LimitNOFILE in the systemd unit, or ulimit -n", limit, descriptorReserve)
	}
	d.dialling += n
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.dialling -= n
	}), nil
}

// take takes n descriptors if no more than most are in use with them. mu is held.
func (d *descriptors) take(n, most int) bool {
	if d.used+n > most {
		d.used = d.open() + d.dialling // a dial under way may have its descriptor or not
	}
	if d.used+n > most {
		return false
	}
	d.used += n
	return true
}

// admit reports whether a connection that somebody else has opened may stay: not when it has one of the last descriptors.
func (d *descriptors) admit() bool {
	limit := d.limit()
	if limit == 0 {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.take(1, limit-storeReserve)
}

// tooFewFor says in words that the limit does not suffice for a config, "" when it does.
func (d *descriptors) tooFewFor(cfg *config.Config) string {
	limit, need := d.limit(), DescriptorsFor(cfg)
	if limit == 0 || need <= limit {
		return ""
	}
	return fmt.Sprintf("this config needs about %d file descriptors and the process may open %d: about %d devices will not be polled; "+
		"raise LimitNOFILE in the systemd unit, or ulimit -n", need, limit, min(need-limit, len(cfg.Connections())))
}

// openedBy returns how many descriptors the driver of a connection may have open.
func openedBy(c *config.Connection) int {
	n, err := strconv.Atoi(c.Connection.Options[c.Protocol.Connections])
	if err != nil {
		return 1
	}
	return n
}

// DescriptorsFor returns about how many file descriptors a gateway with this config uses: one a connection and
// destination, and those that are kept for itself.
func DescriptorsFor(cfg *config.Config) (n int) {
	for _, c := range cfg.Connections() {
		n += openedBy(&c)
	}
	return n + len(cfg.Destinations) + ownDescriptors + descriptorReserve
}
