package modbustool

import (
	"context"
	"strings"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/modbus/modbussim"
)

const (
	callAgain = time.Second // after a call that ended, or that nobody took
	beatEvery = 5 * time.Second
)

// caller is a simulated device that calls the gateway, as behind a modem.
type caller struct {
	server                  *modbussim.Server
	transport, address      string
	registration, heartbeat []byte
}

// callerOf returns the caller of a line whose device calls, nil for another line.
func callerOf(c drivers.Connection) (*caller, error) {
	address, registration, heartbeat, err := modbus.Caller(c)
	if err != nil || address == "" {
		return nil, err
	}
	by := &caller{transport: "tcp", address: address, registration: registration, heartbeat: heartbeat}
	if strings.HasPrefix(c.URL, "rtu-") {
		by.transport = "rtuovertcp"
	}
	return by, nil
}

// run calls until ctx ends, and again when a call has ended.
func (c *caller) run(ctx context.Context) {
	tick := time.NewTicker(callAgain)
	defer tick.Stop()
	for beaten := time.Now(); ; {
		if c.server.Connections() == 0 {
			_ = c.server.Call(c.address, c.registration) // nobody may listen yet
		}
		if len(c.heartbeat) > 0 && time.Since(beaten) >= beatEvery {
			beaten = time.Now()
			c.server.Say(c.heartbeat)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
