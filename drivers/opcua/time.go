package opcua

import (
	"time"

	"github.com/gopcua/opcua/ua"
)

// DateTime counts 100 ns ticks from 1601-01-01. Its smallest value means "not set or earlier", its
// greatest "9999-12-31 or later" (OPC 10000-6, 5.2.2.5). Both in ticks since 1970:
const (
	firstTick = -116444736000000000
	lastTick  = 2534023007990000000
)

// ticksOf returns the 100 ns ticks since 1970 of a DateTime that the library decoded. The library
// multiplies ticks by 100 in 64 bits, so that dates before 1677 or after 2262 (such as the year 9999,
// which many servers send for "never") come out wrapped around, as plausible wrong dates. The
// remainder by 100 tells how many times they wrapped, because 2^64 leaves 16 and a tick leaves 0.
func ticksOf(t time.Time) int64 {
	if t.IsZero() {
		return firstTick
	}
	n := t.UnixNano()
	if n%100 == 0 {
		return n / 100
	}
	const wrap = (1<<64 - 16) / 100
	for k := int64(-1); k < 24; k++ {
		if rest := n%100 + 16*k; rest%100 == 0 {
			if ticks := k*wrap + n/100 + rest/100; ticks >= firstTick {
				return min(ticks, lastTick)
			}
		}
	}
	return lastTick
}

// timeOf returns the time of a value in microseconds since 1970: the device's own, else the server's,
// else the middle of the request.
func timeOf(dv *ua.DataValue, middle int64) int64 {
	switch {
	case !dv.SourceTimestamp.IsZero():
		return micros(ticksOf(dv.SourceTimestamp))
	case !dv.ServerTimestamp.IsZero():
		return micros(ticksOf(dv.ServerTimestamp))
	}
	return middle
}

// micros rounds down, also before 1970.
func micros(ticks int64) int64 {
	if ticks < 0 {
		return (ticks - 9) / 10
	}
	return ticks / 10
}
