package main

import (
	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/opcua"
)

// protocols is the visible list of drivers: a new one is a line here.
func protocols() []drivers.Protocol {
	return []drivers.Protocol{
		modbus.Protocol(),
		opcua.Protocol(),
	}
}
