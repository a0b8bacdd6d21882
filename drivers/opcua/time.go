package opcua

// DateTime counts 100 ns ticks from 1601-01-01. Its smallest value means "not set or earlier", its
// greatest "9999-12-31 or later" (OPC 10000-6, 5.2.2.5). Both in ticks since 1970:
const (
	firstTick = -116444736000000000
	lastTick  = 2534023007990000000
)

// ticksOf returns the 100 ns ticks since 1970 of a DateTime. Many servers send the greatest for "never".
func ticksOf(dateTime int64) int64 {
	return min(max(dateTime, 0), lastTick-firstTick) + firstTick
}

// timeOf returns the time of a value in microseconds since 1970: the device's own, else the server's,
// else the middle of the request.
func timeOf(v *dataValue, middle int64) int64 {
	switch {
	case v.source > 0:
		return micros(ticksOf(v.source))
	case v.server > 0:
		return micros(ticksOf(v.server))
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
