package modbus

// What is told of a device, and kept over a restart, must be its doing, not that of a bad line. A device refuses the same thing each
// time and answers all else. So a thing is believed when it was refused in several polls, and all the while nothing else failed.

// The bounds of belief. A line that spoils each answer with any chance makes both happen with one of 100,000 at most.
const (
	enoughRefusals = 3  // in as many polls
	enoughAnswers  = 50 // to other requests meanwhile
	mostTrials     = 6  // of one gap, until something else is believed to be the matter
)

// weather is how well a unit is heard.
type weather struct {
	noise int // troubles that may be none of the device's doing, so far
	right int // answers with values, so far
}

// evidence is how often a thing was refused while nothing else failed. The zero value is none.
type evidence struct {
	times, poll int // in how many polls, and the last of them
	began       weather
}

// add notes a refusal in a poll, and reports whether it is enough.
func (e *evidence) add(poll int, w weather) bool {
	if e.times == 0 || w.noise != e.began.noise {
		*e = evidence{began: w}
	}
	if e.times == 0 || poll > e.poll {
		e.times, e.poll = e.times+1, poll
	}
	return e.times >= enoughRefusals && w.right-e.began.right >= enoughAnswers
}

// amiss notes trouble that may be none of the device's doing: with what is not known to be refused, and no longer than what was answered.
func (p *poll) amiss(b *block, err error) {
	if err != nil && b.reason == "" && !b.trial && b.count <= p.unit.limitOf(b.table).best {
		p.unit.noise++
	}
}

// The bounds of chance: how many requests for a block must fail in a row until it is searched for what the device refuses. A line that loses
// three answers of ten loses four in a row with one of 120.
const (
	enoughLost    = 4 // losses of what may well be answered
	enoughWords   = 2 // exceptions of what was answered before
	enoughUnknown = 2 // losses of what reads across a gap of which nothing is known, which is the likely cause
)

// enough is how many requests for a block must fail in a row until it is searched; chance: in a way in which a bad line does it, too.
func (u *unit) enough(b *block, chance bool) int {
	likely := b.hi-b.lo > 1 && b.count <= u.limitOf(b.table).best // no longer than what was answered
	switch {
	case b.half.words != "" || b.unasked || !b.proved && !(chance && likely):
		return 1
	case !chance:
		return enoughWords
	case !b.proved && b.unknown():
		return enoughUnknown
	}
	return enoughLost
}
