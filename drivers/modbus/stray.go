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
// is known to be there, an answer is believed only when nothing else came before it and shortly after it.

// strayKind is what a stray is.
type strayKind uint8

const (
	strayLate   strayKind = iota // the answer to a request that was given up
	strayTwice                   // the last answer once more
	strayRival                   // what nobody here asked for
	strayDouble                  // likewise, and it fits the request before, whose answer it may be
	strayKinds
)

// fewStrays is how many of a kind are told of: one or two may be noise, or of a program that was here before.
const fewStrays = 3

// owedTime is how long the answer to a request may be on its way.
const owedTime = 30 * time.Second

// strays is what came over a line unasked. Other goroutines look at it.
type strays struct {
	mu    sync.Mutex
	seen  [strayKinds]sighting
	rival time.Time  // when another master was last there; only the driver looks
	owed  [8]owed    // the last requests that were given up, and
	next  int        // which of them is overwritten next
	last  owed       // the last request that was answered, and
	frame []byte     // its answer: unit and PDU
	lates [256]uint8 // by unit: answers that came late
	given []byte     // the answer to the request that is judged now, likewise
	asked []byte     // the last request, likewise: some serial adapters hear themselves
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

// judge says what a stray is, and notes it; ours says that its transaction id is one of ours.
func (k *strays) judge(body []byte, came when, ours bool, now time.Time) {
	if string(body) == string(k.asked) {
		return
	}
	kind := strayRival
	for i := range k.owed {
		if k.owed[i].takes(body, now) {
			k.owed[i].until, kind = time.Time{}, strayLate
			break
		}
	}
	switch {
	case kind == strayLate:
	case came == instead && body[0] == k.asked[0]:
		return // the device's own, and wrong
	case ours || string(body) == string(k.frame) || string(body) == string(k.given):
		kind = strayTwice
	case k.last.takes(body, now):
		kind = strayDouble
	}
	k.note(kind, body, now)
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
	if kind >= strayRival {
		k.rival = now
	}
}

// late reports whether the answers of a unit come later than its timeout.
func (k *strays) late(unit uint8, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lates[unit] >= fewStrays && k.seen[strayLate].fresh(now)
}

// doubts returns how many strays may be the answer to a request that another one was taken for.
func (k *strays) doubts() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen[strayDouble].times
}

// rivals returns what is known of another master.
func (k *strays) rivals() sighting {
	s, d := k.seen[strayRival], k.seen[strayDouble]
	if d.last.After(s.last) {
		s.last, s.frame = d.last, d.frame
	}
	if s.since.IsZero() || !d.since.IsZero() && d.since.Before(s.since) {
		s.since = d.since
	}
	s.times += d.times
	return s
}

const rivalMend = "stop the other one, or ask through it; where a converter serves several masters, let it answer only the one that asked"

// trouble says that another master is on the line.
func (k *strays) trouble(now time.Time) (t drivers.Trouble) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.rivals(); s.fresh(now) {
		t = drivers.Trouble{State: drivers.Contested, Since: s.since, What: s.rivalWords(), Mend: rivalMend}
	}
	return t
}

func (s *sighting) rivalWords() string {
	return fmt.Sprintf("another master speaks on this line: %s that nobody here asked for, the last %s", telemetry.Count(s.times, "frame"), s.frame)
}

// warning says what came unasked, each kind once a minute at most.
func (k *strays) warning(now time.Time) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	due := func(s *sighting, known sighting) bool {
		if !known.fresh(now) || known.last.Before(s.warned) || now.Sub(s.warned) < warnEvery {
			return false
		}
		s.warned = now
		return true
	}
	rivals := k.rivals()
	late, twice := &k.seen[strayLate], &k.seen[strayTwice]
	switch {
	case due(&k.seen[strayRival], rivals):
		return rivals.rivalWords() + "; " + rivalMend
	case due(late, *late):
		return fmt.Sprintf("answers come later than timeout: %s so far; raise timeout", telemetry.Count(late.times, "answer"))
	case due(twice, *twice):
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

// look judges every whole frame in what came.
func (w *wire) look(b []byte, came when) {
	for w.strays != nil && len(b) > 0 {
		body, n := w.framing.stray(b)
		switch {
		case body == nil, w.framing == mbap && w.number-binary.BigEndian.Uint16(b) > lateTransactions:
		case came == beside && string(body[1:]) == string(w.strays.given[1:]):
			came = unasked
		default:
			w.strays.judge(body, came, w.framing == mbap, time.Now())
		}
		b = b[n:]
	}
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
	code, refused := err.(exception)
	if refused {
		pdu = []byte{q.pdu[0] | exceptionBit, byte(code)}
	}
	k.asked = append(append(k.asked[:0], q.unit), q.pdu...)
	k.given = append(append(k.given[:0], q.unit), pdu...)
	defer k.settled(q, pdu != nil, l.last)
	lost := asLoss(err)
	switch {
	case lost != nil && lost.kind == lossUnit: // more likely the device's own mistake
	case l.framing == mbap && lost == nil && w.strange.foreign:
		k.note(strayRival, nil, l.last)
	case l.framing == mbap:
		if n := l.framing.size(len(pdu)); pdu != nil && w.have > n {
			w.look(w.in[n:w.have], unasked)
		}
	case pdu == nil || w.have > l.framing.size(len(pdu)):
		came := beside
		if pdu == nil {
			came = instead
		}
		w.look(w.in[:w.have], came)
	}
}

// crowded reports whether another master was on the line lately, so that an answer may be another's.
func (l *link) crowded(now time.Time) bool {
	return l.framing != mbap && !l.strays.rival.IsZero() && now.Sub(l.strays.rival) < contestTime
}

// alone makes sure that no answer but this one came while the request was under way, nor within a time after it. It is a *loss otherwise.
func (l *link) alone(ctx context.Context, q *request, crowd bool, guard time.Duration) error {
	w, err := l.wire, error(nil)
	if crowd = crowd || w.have == len(w.in); !crowd {
		if crowd, err = w.follows(ctx, guard); err != nil {
			return err
		}
	}
	if !crowd {
		return nil
	}
	l.strays.settled(q, false, time.Now())
	l.strays.last, l.strays.frame = owed{}, l.strays.frame[:0] // it is not believed
	return &loss{kind: lossCrowd}
}

// follows reports whether anything comes within a time.
func (w *wire) follows(ctx context.Context, guard time.Duration) (bool, error) {
	if err := w.SetReadDeadline(time.Now().Add(guard)); err != nil {
		return false, &loss{kind: lossClosed, cause: err}
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	for {
		n, err := w.Read(w.in[w.have:])
		came := w.in[w.have : w.have+n]
		switch {
		case n > 0 && w.heartbeat != nil && len(came)%len(w.heartbeat) == 0 && bytes.Count(came, w.heartbeat) == len(came)/len(w.heartbeat):
		case n > 0:
			w.strays.note(strayRival, came, time.Now())
			return true, nil
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, nil
		default:
			return false, &loss{kind: lossClosed, cause: err}
		}
	}
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
