package modbus

import "time"

// pace is how hastily a peer may be asked. What the config does not say is learned: a request that was sent soon after an
// answer, or first on a new connection, and met silence, while the same request was answered later, may say that the peer was
// not ready, or that the line loses answers. So a pause is made at once, and told only when it is proved: hasty requests are made
// now and then, each again after the pause. One that was answered says that it was something else.
type pace struct {
	between, connect            time.Duration // to wait after an answer, and after a connect
	betweenGiven, connectGiven  bool          // by the config: nothing is learned
	gap, age                    time.Duration // before the request under way: since the last answer, since the connect
	first                       bool          // it is the first of its connection
	easy                        time.Duration // the shortest gap after which a request was answered, 0 = none yet
	promptly                    bool          // a first request was answered without delay
	deaf                        int           // connections whose first requests met silence
	connectSeen                 time.Duration // how old the last of them was when it answered
	learnedBetween, learnedDeaf bool
	candidate                   time.Duration // gap before the request that met silence; < 0 none
	deafCandidate               bool
	trial                       trial // of the request under way
	vain                        trial // that met silence just now; the request is to be made again
	tried                       [trials]time.Time
	proof                       [trials]int // hasty requests in a row that met silence and were answered at once after the pause
	futile                      int         // requests asked again for haste that met silence again, since one did not
}

// trial is which learned pause a request does without.
type trial uint8

const (
	noTrial trial = iota
	trialBetween
	trialConnect
	trials
)

// The bounds of learning.
const (
	trialEvery   = time.Hour
	testEvery    = time.Second // of a pause that is not proved
	enoughProof  = 10          // a line that loses three answers of ten does that with one of 5,000,000 (DESIGN.md)
	firstPause   = 25 * time.Millisecond
	longestPause = time.Second
	longestDeaf  = 10 * time.Second
	deafStep     = 100 * time.Millisecond // to which a pause after a connect is rounded up
)

// told is a learned pause if it is proved, else 0.
func (p *pace) told(t trial) time.Duration {
	switch {
	case p.proof[t] < enoughProof:
	case t == trialBetween && p.learnedBetween:
		return p.between
	case t == trialConnect && p.learnedDeaf:
		return p.connect
	}
	return 0
}

// every is how often a learned pause is left out.
func (p *pace) every(t trial) time.Duration {
	if p.proof[t] < enoughProof {
		return testEvery
	}
	return trialEvery
}

// next is when the next request may be sent; careful: not sooner than what is learned allows.
func (p *pace) next(l *link, careful bool) time.Time {
	now, at := time.Now(), time.Time{}
	if !l.last.IsZero() {
		at = l.last.Add(l.lineSilence())
	}
	p.trial = noTrial
	careful = careful || p.vain != noTrial
	if !l.last.IsZero() {
		at = p.after(at, now, l.last, p.between, trialBetween, !careful && p.learnedBetween && l.answered && now.Sub(l.heard) < p.between/2)
	}
	if !l.answered {
		at = p.after(at, now, l.opened, p.connect, trialConnect, !careful && p.learnedDeaf)
	}
	return at
}

// after returns the later of at and a pause after from. One that may be tried is left out now and then, to learn whether it is needed.
func (p *pace) after(at, now, from time.Time, d time.Duration, t trial, may bool) time.Time {
	until := from.Add(d)
	switch {
	case d == 0 || !until.After(at):
		return at
	case may && p.trial == noTrial && now.Sub(p.tried[t]) >= p.every(t) && until.Sub(now) > d/2 && at.Before(now.Add(d/2)):
		p.trial, p.tried[t] = t, now
		return at
	}
	return until
}

// lineSilence is the pause that marks the end of a frame on a serial line.
func (l *link) lineSilence() time.Duration {
	if l.network == netSerial && l.framing == rtu {
		return l.serial.silence()
	}
	return 0
}

// sends notes when a request is sent.
func (p *pace) sends(l *link, now time.Time) {
	p.first = !l.answered
	p.age = now.Sub(l.opened)
	p.gap = longestPause + 1
	if l.answered && l.last.Equal(l.heard) { // else silence was before it, which is no haste
		p.gap = now.Sub(l.heard)
	}
}

// answers notes that the request was answered.
func (p *pace) answers(l *link, now time.Time) {
	switch p.trial {
	case trialBetween: // it was something else, or the device is another one
		p.between, p.learnedBetween, p.proof[trialBetween] = 0, false, 0
	case trialConnect:
		p.connect, p.learnedDeaf, p.deaf, p.proof[trialConnect] = 0, false, 0, 0
	}
	p.trial = noTrial
	if p.first && p.age < firstPause+p.connect && !p.deafCandidate {
		p.promptly = true
	}
	if !p.first && (p.easy == 0 || p.gap < p.easy) {
		p.easy = max(p.gap, 1) // a clock may stand still meanwhile
	}
}

// silent remembers that the request met silence, for the case that it is answered when asked again.
func (p *pace) silent() {
	p.candidate, p.deafCandidate = -1, p.first && p.trial == noTrial
	p.doubt()
	if p.trial != noTrial { // nothing else is to be learned of it
		p.vain, p.trial = p.trial, noTrial
		return
	}
	if !p.first && p.gap <= longestPause/2 {
		p.candidate = p.gap
	}
}

// doubt takes back what a hasty request proved that was not answered after the pause either.
func (p *pace) doubt() {
	if t := p.vain; t != noTrial && p.proof[t] < enoughProof {
		p.proof[t] = 0
	}
	p.vain = noTrial
}

// maxFutile is how many requests are made again for haste without success before something else is believed to be the cause.
const maxFutile = 2

// hasty reports whether haste may be why the last request met silence, so that it is worth asking again.
func (p *pace) hasty() bool {
	return p.futile < maxFutile && p.wasHasty()
}

func (p *pace) wasHasty() bool {
	return p.tooSoon() || !p.connectGiven && p.deafCandidate && !p.promptly
}

// tooSoon reports whether the last request that met silence came sooner after an answer than any that was answered, and by more
// than jitter.
func (p *pace) tooSoon() bool {
	return !p.betweenGiven && p.candidate >= 0 && (p.easy == 0 || p.easy > time.Millisecond && p.candidate < p.easy-p.easy/8)
}

// recovered is called at the first answer after a request that met silence; same says that it is to the same request.
func (p *pace) recovered(l *link, now time.Time, same bool) {
	if t := p.vain; t != noTrial {
		if p.vain = noTrial; same {
			p.proof[t] = min(p.proof[t]+1, enoughProof)
		}
	}
	if same && p.tooSoon() {
		p.between = min(max(2*p.between, 2*p.candidate, firstPause).Round(5*time.Millisecond), longestPause)
		if p.easy > 0 {
			p.between = min(p.between, (p.easy + time.Millisecond - 1).Truncate(time.Millisecond)) // which was enough once
		}
		p.learnedBetween, p.tried[trialBetween], p.proof[trialBetween] = true, now, 0
	}
	if p.deafCandidate && !p.connectGiven && !p.promptly {
		if p.deaf++; p.deaf >= 2 { // once may have been a start of the device
			p.connect, p.learnedDeaf = min(max(p.connectSeen, now.Sub(l.opened)), longestDeaf), true
			p.connect = (p.connect + deafStep - 1).Truncate(deafStep)
			p.tried[trialConnect], p.proof[trialConnect] = now, 0
		}
		p.connectSeen = now.Sub(l.opened)
	}
	p.candidate, p.deafCandidate = -1, false
	if same {
		p.futile = 0
	}
}
