package opcua

import "time"

const lagBounds = 200 * 365 * 24 * time.Hour // between the clocks; a server that is further off has none

// lag says how long ago a message was sent, at most, by the server's own time of it: what waited in the buffers of a path that stood still says nothing of the time when
// it is taken. Whatever answers a request was sent behind it, which bounds how far our clock is ahead of the server's; the exchange that bounds it closest counts. So neither
// clock has to be right, and a path that is slow for ever does not pass for a quick one. A clock that is set makes messages late by the time since they were asked for, at most, or is
// noticed, because they come before they were sent.
type lag struct {
	known bool
	ahead time.Duration // our clock is so far ahead of the server's, at least
	took  time.Duration // the exchange that says so
}

// of takes when a message was asked for and when it came, by our clock, and when it was sent, a DateTime by the server's. One that does not say so was sent when
// it was asked for.
func (l *lag) of(asked, came time.Time, sent int64) time.Duration {
	ticks, took := ticksOf(sent), came.Sub(asked)
	ahead := came.Round(0).Sub(time.UnixMicro(micros(ticks))) // and by the message's way less
	switch {
	case ticks <= firstTick || ticks >= lastTick || ahead.Abs() > lagBounds:
		return took
	case !l.known || ahead-took > l.ahead:
		*l = lag{true, ahead - took, took}
	case ahead < l.ahead: // a clock was set, or they drift
		l.ahead = ahead - l.took
	}
	return ahead - l.ahead
}
