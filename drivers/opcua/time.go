package opcua

import (
	"cmp"

	"millrace/drivers/opcua/wire"
)

// DateTime counts 100 ns ticks from 1601-01-01. Its smallest value means "not set or earlier", its
// greatest "9999-12-31 or later" (OPC 10000-6, 5.2.2.5). Both in ticks since 1970:
const (
	firstTick = wire.FirstTick
	lastTick  = 2534023007990000000
)

// ticksOf returns the 100 ns ticks since 1970 of a DateTime. Many servers send the greatest for "never".
func ticksOf(dateTime int64) int64 {
	return min(max(dateTime, 0), lastTick-firstTick) + firstTick
}

// timeOf returns the source time of a value in microseconds since 1970, 0 when the server says none: "not set" and "never" are no times. The server's own
// time says only when it answered, which the gateway knows better: see telemetry.Reading.Time.
func timeOf(v *wire.DataValue) int64 {
	return saidTime(ticksOf(v.Source))
}

// saidTime returns a time in microseconds since 1970, of ticks since then, 0 when that is none. The first microsecond of 1970, at which a clock begins that was never set, is told as 1.
func saidTime(ticks int64) int64 {
	if ticks <= firstTick || ticks >= lastTick {
		return 0
	}
	return cmp.Or(micros(ticks), 1)
}

// micros rounds down, also before 1970.
func micros(ticks int64) int64 {
	if ticks < 0 {
		return (ticks - 9) / 10
	}
	return ticks / 10
}
