package opcua

import "time"

const (
	lagBucket = 5 * time.Minute
	lagBounds = 200 * 365 * 24 * time.Hour // between the clocks; a server that is further off has none
)

// lag says how long a message was under way, by the server's own time of it: what waited in the buffers of a path that stood still says nothing of the time
// when it is taken. The shortest way seen lately counts as none. A clock that is set back makes messages late for as long as the shortest way is remembered, which
// makes gaps longer; none that is set makes a message early.
type lag struct {
	least [2]time.Duration // by which our clock was ahead of a message's time when that came: the bucket before, and this one
	turns time.Time        // when this bucket ends; zero = nothing was seen
}

// of takes when a message came, by our clock, and when it was sent, a DateTime by the server's.
func (l *lag) of(came time.Time, sent int64) time.Duration {
	ticks := ticksOf(sent)
	ahead := came.Round(0).Sub(time.UnixMicro(micros(ticks)))
	if ticks <= firstTick || ticks >= lastTick || ahead.Abs() > lagBounds {
		return 0
	}
	switch {
	case l.turns.IsZero():
		l.least, l.turns = [2]time.Duration{ahead, ahead}, came.Add(lagBucket)
	case came.After(l.turns): // the bucket before stays, however long nothing came
		l.least, l.turns = [2]time.Duration{l.least[1], ahead}, came.Add(lagBucket)
	}
	l.least[1] = min(l.least[1], ahead)
	return ahead - min(l.least[0], l.least[1])
}
