package modbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// A frame that answers nothing we asked for is a stray: an answer that was given up, the same answer twice, or the traffic of another
// master on the line. The last is the one that is dangerous where no transaction id tells answers apart: as long as another master
// is known to be there, the line is listened to before each request, and an answer is believed only when nothing else came with it or
// shortly after it.

// strayKind is what a stray is.
type strayKind uint8

const (
	strayLate  strayKind = iota // the answer to a request that was given up
	strayTwice                  // the last answer once more
	strayRival                  // what nobody here asked for
	strayKinds
)

// fewStrays is how many of a kind are told of: one or two may be noise, or of a program that was here before.
const fewStrays = 3

// owedTime is how long the answer to a request may be on its way.
const owedTime = 30 * time.Second

// strays is what came over a line unasked. Other goroutines look at it.
type strays struct {
	mu    sync.Mutex // of what other goroutines look at
	seen  [strayKinds]sighting
	lates [256]uint8 // by unit: answers that came late, up to fewStrays

	rival  time.Time  // when another master was last there
	doubts int        // strays that may be the answer to a request that another one was taken for
	owed   [16]owed   // the last requests that were given up, and
	next   int        // which of them is overwritten next
	last   owed       // the last request that was answered, and
	frame  []byte     // the PDU of its answer
	hears  bool       // requests come back: some serial adapters hear themselves
	knows  bool       // whether they do was seen: a read was answered, or met by silence
	asked  []byte     // the last request, unit and PDU
	units  acceptance // of it
	given  []byte     // the PDU of its answer, as long as that is judged
}

// sighting is what is known of one kind of strays.
type sighting struct {
	since, last, warned time.Time
	times               int
	frame               string // the last of them in hex: unit and PDU
}

// owed is what an answer to a request looks like.
type owed struct {
	request
	until time.Time
	begin [8]byte // of its PDU, as much as an answer repeats
}

func (s *sighting) fresh(now time.Time) bool {
	return s.times >= fewStrays && now.Sub(s.last) < contestTime
}

// keep keeps what an answer to a request looks like.
func (o *owed) keep(q *request, until time.Time) {
	*o = owed{request: *q, until: until}
	o.pdu = o.begin[:copy(o.begin[:], q.pdu)]
}

// takes reports whether a stray may be that answer.
func (o *owed) takes(body []byte, now time.Time) bool {
	return now.Before(o.until) && len(body) > 2 && o.from(body[0]) && (o.fits(body[1:]) || o.refusal(body[1:]))
}

// settled notes that a request was answered, or given up.
func (k *strays) settled(q *request, given bool, now time.Time) {
	if !given {
		k.owed[k.next].keep(q, now.Add(owedTime))
		k.next = (k.next + 1) % len(k.owed)
		return
	}
	k.last.keep(q, now.Add(owedTime))
	k.frame, k.given = k.given, k.frame[:0]
}

// from reports whether a frame may come from the unit that was asked last.
func (k *strays) from(unit byte) bool { return unit == k.asked[0] || k.units.takes(int(unit)) }

// echoes reports whether a frame is the last request itself.
func (k *strays) echoes(body []byte) bool { return string(body) == string(k.asked) }

// repeats reports whether a frame is the last answer once more.
func (k *strays) repeats(body []byte) bool {
	return string(body[1:]) == string(k.frame) && k.last.from(body[0]) || string(body[1:]) == string(k.given) && k.from(body[0])
}

// judge says what a stray is, notes it, and reports whether it is an answer that comes late; ours says that its transaction id is one of ours.
func (k *strays) judge(body []byte, came when, ours bool, now time.Time) (late bool) {
	for i := range k.owed {
		if k.owed[i].takes(body, now) {
			k.owed[i].until = time.Time{}
			k.note(strayLate, body, now)
			return true
		}
	}
	switch {
	case came == instead && k.from(body[0]): // the device's own, and wrong
	case ours || k.repeats(body):
		k.note(strayTwice, body, now)
	default:
		if k.last.takes(body, now) {
			k.doubts++
		}
		k.note(strayRival, body, now)
	}
	return false
}

func (k *strays) note(kind strayKind, body []byte, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &k.seen[kind]
	if now.Sub(s.last) >= contestTime {
		s.since, s.times = now, 0
		if kind == strayLate {
			clear(k.lates[:])
		}
	}
	if kind == strayLate {
		k.lates[body[0]] = min(k.lates[body[0]]+1, fewStrays)
	}
	s.last, s.times, s.frame = now, s.times+1, hex.EncodeToString(body[:min(len(body), 16)])
	if kind == strayRival {
		k.rival = now
	}
}

// late reports whether the answers of a unit come later than its timeout.
func (k *strays) late(unit uint8, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lates[unit] >= fewStrays && k.seen[strayLate].fresh(now)
}

const rivalMend = "stop the other one, or ask through it; where a converter serves several masters, let it answer only the one that asked"

// trouble says that another master is on the line.
func (k *strays) trouble(now time.Time) (t drivers.Trouble) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := &k.seen[strayRival]; s.fresh(now) {
		t = drivers.Trouble{State: drivers.Contested, Since: s.since, What: s.rivalWords(), Mend: rivalMend}
	}
	return t
}

func (s *sighting) rivalWords() string {
	which := "the last " + s.frame
	if s.frame == "" {
		which = "with transaction ids of its own"
	}
	return fmt.Sprintf("another master speaks on this line: %s that nobody here asked for, %s", telemetry.Count(s.times, "frame"), which)
}

// warning says what came unasked, each kind once a minute at most.
func (k *strays) warning(now time.Time) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	due := func(s *sighting) bool {
		if !s.fresh(now) || s.last.Before(s.warned) || now.Sub(s.warned) < warnEvery {
			return false
		}
		s.warned = now
		return true
	}
	rival, late, twice := &k.seen[strayRival], &k.seen[strayLate], &k.seen[strayTwice]
	switch {
	case due(rival):
		return rival.rivalWords() + "; " + rivalMend
	case due(late):
		return fmt.Sprintf("answers come later than timeout: %s so far; raise timeout", telemetry.Count(late.times, "answer"))
	case due(twice):
		return fmt.Sprintf("answers come twice: %s so far; look for a converter that repeats, or for two on one line", telemetry.Count(twice.times, "answer"))
	}
	return ""
}

// when is when something came.
type when uint8

const (
	unasked when = iota // while no request was under way
	beside              // besides the answer to a request, which is among it
	instead             // of the answer
)

// look judges every whole frame in what came. It returns how many bytes are neither the request, nor the answer, nor a heartbeat, and where
// the last frame ends.
func (w *wire) look(b []byte, came when) (odd, end int) {
	for k, whole := w.strays, len(b); k != nil && len(b) > 0; {
		body, n := w.framing.stray(b)
		switch beat := len(w.heartbeat); {
		case beat > 0 && bytes.HasPrefix(b, w.heartbeat) && (body == nil || n == beat):
			n = beat
		case body == nil, w.framing == mbap && w.number-binary.BigEndian.Uint16(b) > lateTransactions:
			odd += n
		case k.echoes(body):
			k.hears = k.hears || body[1] <= readInput // of a function whose answer is never like its request
		case came == beside && string(body[1:]) == string(k.given) && k.from(body[0]):
			came = unasked
		default:
			if !k.repeats(body) {
				odd += n
			}
			late := k.judge(body, came, w.framing == mbap, time.Now())
			w.strange.late = w.strange.late || late
		}
		if b = b[n:]; body != nil {
			end = whole - len(b)
		}
	}
	return odd, end
}

// stray returns the unit and PDU of a whole frame at the beginning of b, nil for none, and where to look for the next.
func (f framing) stray(b []byte) (body []byte, n int) {
	switch f {
	case mbap:
		if len(b) <= mbapHeader || b[2] != 0 || b[3] != 0 || b[4] != 0 {
			return nil, len(b)
		}
		if n := int(b[5]) + 6; n > mbapHeader && n <= len(b) {
			return b[6:n], n
		}
		return nil, len(b)
	case rtu:
		short, long := strayLengths(b)
		for _, n := range [2]int{min(short, long), max(short, long)} { // the shorter first: a frame and two zeros are one, too
			if n <= len(b) && crc16(b[:n-2]) == binary.LittleEndian.Uint16(b[n-2:]) {
				return b[:n-2], n
			}
		}
		return nil, 1
	}
	return strayASCII(b)
}

// strayLengths is how long an RTU frame may be that begins like this: a request or an answer of the functions that are in use.
func strayLengths(b []byte) (one, other int) {
	const none = 1 << 16
	if len(b) < 5 {
		return none, none
	}
	switch code := b[1]; code {
	case readCoils, readDiscretes, readHolding, readInput:
		return 8, int(b[2]) + 5
	case writeCoil, writeRegister:
		return 8, none
	case writeCoils, writeRegisters:
		if len(b) > 6 {
			return 8, int(b[6]) + 9
		}
	default:
		if code&exceptionBit != 0 && code&^exceptionBit <= writeRegisters {
			return 5, none
		}
	}
	return none, none
}

func strayASCII(b []byte) (body []byte, n int) {
	if b[0] != ':' {
		return nil, 1
	}
	for n = 1; n < len(b) && b[n] != '\r' && b[n] != ':'; n++ {
	}
	if n == len(b) || b[n] == ':' || n%2 == 0 || n < 9 {
		return nil, n
	}
	body = make([]byte, n/2)
	if _, err := hex.Decode(body, b[1:n]); err != nil {
		return nil, n
	}
	sum := byte(0)
	for _, v := range body {
		sum += v
	}
	if sum != 0 {
		return nil, n
	}
	return body[:len(body)-1], n
}

// besides notes what came besides the answer to a request, and what answers may come yet.
func (l *link) besides(q *request, pdu []byte, err error) {
	w, k := l.wire, &l.strays
	k.asked, k.units = append(append(k.asked[:0], q.unit), q.pdu...), q.units
	k.given = append(k.given[:0], pdu...)
	if code, refused := err.(exception); refused {
		k.given = append(k.given, q.pdu[0]|exceptionBit, byte(code))
	}
	size, given := l.framing.size(len(k.given)), len(k.given) > 0
	defer k.settled(q, given, l.last)
	lost := asLoss(err)
	switch {
	case lost != nil && lost.kind == lossUnit: // more likely the device's own mistake
	case l.framing == mbap && given && w.strange.foreign:
		k.note(strayRival, nil, l.last)
	case given && w.have <= size:
		w.judged = w.have
	case l.framing == mbap && given:
		w.look(w.in[size:w.have], unasked)
	case l.framing == mbap:
	case given:
		_, w.judged = w.look(w.in[:w.have], beside)
		w.judged = max(w.judged, size) // look does not know the answers of all functions
	default:
		odd, _ := w.look(w.in[:w.have], instead)
		came, own := w.have, l.framing.size(len(q.pdu))
		if w.packets {
			came = w.strange.bytes
		}
		mirror := w.strange.heard && w.have == 0 || k.hears && odd < leastFrame && came == own
		switch {
		case lost == nil || lost.kind != lossInvalid:
		case mirror: // nothing but the request came
			lost.kind = lossSilent
		case w.strange.late:
			lost.instead = lateWords
		}
	}
	k.knows = k.knows || q.pdu[0] <= readInput && (given || lost != nil && lost.kind == lossSilent && w.have == 0)
}

// crowded reports whether another master was on the line lately, so that an answer may be another's.
func (l *link) crowded(now time.Time) bool {
	return l.framing != mbap && !l.strays.rival.IsZero() && now.Sub(l.strays.rival) < contestTime
}

// leastFrame is how many bytes the shortest answer has on lines without transaction ids: what is shorter is noise.
const leastFrame = 5

// alone makes sure that no other answer follows within a time, nor came with this one, which crowd says. It is a *loss otherwise.
func (l *link) alone(ctx context.Context, crowd bool, guard time.Duration) error {
	l.strays.last.until = time.Time{} // what comes from now on casts no doubt on it: the other's answers are often as long
	if !crowd {
		odd, err := l.wire.follows(ctx, guard)
		if err != nil {
			return err
		}
		crowd = odd >= leastFrame
	}
	if crowd {
		l.strays.frame = l.strays.frame[:0]
		return &loss{kind: lossCrowd}
	}
	return nil
}

// follows returns how many bytes that may be another answer's come within a time, besides an answer that stands in w.in.
func (w *wire) follows(ctx context.Context, within time.Duration) (odd int, err error) {
	if err := w.SetReadDeadline(time.Now().Add(within)); err != nil {
		return 0, &loss{kind: lossClosed, cause: err}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	for w.have < len(w.in) {
		n, err := w.Read(w.in[w.have:])
		w.have += n
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			odd, _ = w.look(w.in[w.judged:w.have], unasked) // a frame may have begun with the end of the answer
			return odd, nil
		default:
			return 0, &loss{kind: lossClosed, cause: err}
		}
	}
	w.look(w.in[w.judged:], unasked)
	return len(w.in), nil // there may be more
}

// size is how long the frame of a PDU is.
func (f framing) size(pdu int) int {
	switch f {
	case mbap:
		return mbapHeader + pdu
	case rtu:
		return pdu + 3
	}
	return 2*(pdu+2) + 3
}
