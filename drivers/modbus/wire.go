package modbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"
)

// port is what carries the bytes: a net.Conn, or a serial line.
type port interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
}

// wire is one open connection. It has one request under way at a time, and its buffers serve all of them.
type wire struct {
	port
	framing framing
	packets bool    // what is read at once is one datagram
	drain   drain   // nil = nothing can lie there
	prompt  *prompt // nil = it cannot be done at once
	number  uint16  // of the last transaction
	out     [maxFrame]byte
	in      [2048]byte
	have    int // bytes in in
	judged  int // of them, up to the end of the last whole frame
	text    [maxPDU + 3]byte
	strange strange
	strays  *strays // nil = nobody wants to know

	heartbeat []byte // what the peer sends now and then of its own accord, nil = nothing
}

// drain throws away what lies unread, at most a little over maxStray bytes, and says how much that was and whether the peer has ended the
// connection. Its beginning stands in into, up to half of that.
type drain func(into []byte) (int, error)

// strange is what came in place of an answer, for the words and the bounds.
type strange struct {
	bytes, frames int
	late          bool // the answer to an earlier request
	heard         bool // the request itself, where the answer is like it
	zero          bool // a frame with transaction id 0
	foreign       bool // a frame with another transaction id
	unit          int  // a frame of another unit id, 0 also for none
	hasUnit       bool
	damaged       bool
}

// flooded reports whether a peer sends more that nobody asked for than is borne.
func (s *strange) flooded() bool { return s.bytes > maxStray || s.frames > maxForeign }

// exchange sends a request and returns the PDU of the answer, valid until the next exchange. Its error is an exception, a
// *loss, or that of ctx, whose end must be made known by interrupt.
func (w *wire) exchange(ctx context.Context, q *request, timeout time.Duration) ([]byte, error) {
	w.strange = strange{}
	if err := w.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, &loss{kind: lossClosed, cause: err}
	}
	if err := ctx.Err(); err != nil {
		return nil, err // ended before the deadline was set, which would have hidden it
	}
	w.have = 0
	w.number++
	if err := w.send(ctx, w.framing.pack(w.out[:0], w.number, q)); err != nil {
		return nil, err
	}
	for {
		pdu, err := w.find(q)
		if err != nil {
			return nil, err
		}
		if pdu != nil {
			return answer(q, pdu)
		}
		if w.packets && w.strays != nil && q.pdu[0] <= readInput && bytes.Equal(w.in[:w.have], w.framing.pack(w.out[:0], w.number, q)) {
			w.strays.hears = true // its datagram is overwritten
		}
		if err := w.more(ctx); err != nil {
			w.count(q, asLoss(err))
			return nil, err
		}
	}
}

// count tells a loss of which the answer began to come from another, and says how much of it came.
func (w *wire) count(q *request, l *loss) {
	if l == nil || l.kind != lossPart && (l.kind != lossInvalid || w.framing == mbap) {
		return
	}
	have, whole := w.have, w.framing.size(q.length(q.pdu))
	switch {
	case w.framing == mbap && w.have >= 6:
		whole = int(binary.BigEndian.Uint16(w.in[4:])) + 6
	case q.varies:
		return
	case w.framing == rtu:
		have, whole = q.begunRTU(w.in[:w.have])
	case w.framing == ascii:
		have -= max(bytes.LastIndexByte(w.in[:w.have], ':'), 0)
		if w.have == 0 || w.in[w.have-have] != ':' {
			return
		}
	}
	if have > 0 && have < whole {
		l.kind, l.have, l.whole = lossPart, have, whole
	}
}

// send sends a request, and reads what comes first where that can be done at once.
func (w *wire) send(ctx context.Context, frame []byte) error {
	sent := 0
	if w.prompt != nil {
		var got int
		var err error
		if sent, got, err = w.prompt.ask(frame, w.in[:]); sent == len(frame) {
			return w.came(ctx, got, err)
		}
	}
	if sent == 0 {
		if err := w.begin(); err != nil {
			return err
		}
	}
	if _, err := w.Write(frame[sent:]); err != nil {
		return w.broken(ctx, err)
	}
	return nil
}

// answer tells an exception from values.
func answer(q *request, pdu []byte) ([]byte, error) {
	if q.refusal(pdu) {
		return nil, exception(pdu[1])
	}
	return pdu, nil
}

// begin throws away what came before the request: it cannot be its answer.
func (w *wire) begin() error {
	w.have = 0
	if w.drain == nil {
		return nil
	}
	n, err := w.drain(w.in[:])
	if w.heartbeat == nil { // those of a long pause are no flood
		w.strange.bytes += n
	}
	w.look(w.in[:min(n, len(w.in)/2)], unasked)
	if err != nil {
		return &loss{kind: lossClosed, idle: true, cause: err}
	}
	if w.strange.flooded() {
		return &loss{kind: lossFlood}
	}
	return nil
}

// more reads what there is, into a buffer that holds the longest frame and what may stand before it.
func (w *wire) more(ctx context.Context) error {
	if w.packets {
		w.have = 0
	}
	if w.have > len(w.in)-maxFrame { // only noise fills it so far: keep what an answer can still need
		w.have = copy(w.in[:], w.in[w.have-maxFrame:w.have])
	}
	n, err := w.Read(w.in[w.have:])
	return w.came(ctx, n, err)
}

// came counts what was read.
func (w *wire) came(ctx context.Context, n int, err error) error {
	w.have += n
	if w.framing != mbap {
		w.strange.bytes += n
	}
	if n > 0 || err == nil {
		if w.strange.flooded() {
			return &loss{kind: lossFlood}
		}
		return nil
	}
	return w.broken(ctx, err)
}

// broken makes a loss of a failed read or write.
func (w *wire) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return w.silence()
	}
	return &loss{kind: lossClosed, begun: w.have > 0, cause: err}
}

// silence is the loss when the time is up, and what came instead.
func (w *wire) silence() error {
	s := &w.strange
	l := &loss{kind: lossSilent, begun: w.framing == mbap && w.have > 0 && !w.packets}
	switch {
	case s.late:
		l.instead = lateWords
	case s.zero:
		l.instead = "; answers came with transaction id 0: accept_transaction_id: 0 takes them, if the device always does so"
	case s.foreign:
		l.instead = "; answers came with another transaction id"
	case s.hasUnit:
		l.kind, l.unit = lossUnit, s.unit
	case w.quiet():
		l.begun = false
	case l.begun && (w.have < mbapHeader || w.framed()):
		l.kind = lossPart
	case s.damaged, l.begun, w.framing != mbap && s.bytes > 0:
		l.kind = lossInvalid
	}
	return l
}

// heard cuts off a request that comes back where its answer is like it, and reports whether what was read may be the answer. Where nobody knows
// whether the adapter hears itself, it must come twice likewise.
func (w *wire) heard(q *request) bool {
	if w.framing == mbap || !q.mirrored() || w.strays == nil || w.strays.knows && !w.strays.hears || w.strange.heard {
		return true
	}
	frame := w.framing.pack(w.out[:0], w.number, q)
	i := bytes.Index(w.in[:w.have], frame)
	if i >= 0 {
		w.have, w.strange.heard = copy(w.in[:], w.in[i+len(frame):w.have]), true
	}
	return i >= 0 && w.have > 0
}

// find looks for the answer in what was read so far; nil without an error means that there is none yet.
func (w *wire) find(q *request) ([]byte, error) {
	if !w.heard(q) {
		return nil, nil
	}
	switch w.framing {
	case rtu:
		pdu := q.findRTU(w.in[:w.have])
		if pdu == nil && !w.strange.hasUnit && w.have >= 5 {
			w.strange.unit, w.strange.hasUnit = q.other(w.in[:w.have])
		}
		return pdu, nil
	case ascii:
		pdu, unit := q.findASCII(w.text[:], w.in[:w.have])
		if unit >= 0 {
			w.strange.unit, w.strange.hasUnit = unit, true
		}
		return pdu, nil
	}
	return w.findMBAP(q)
}

// findMBAP takes whole frames from the buffer until one is the answer.
func (w *wire) findMBAP(q *request) ([]byte, error) {
	for w.have >= mbapHeader {
		if cut, wait := w.beats(); cut {
			continue
		} else if wait {
			return nil, nil
		}
		n := int(binary.BigEndian.Uint16(w.in[4:])) + 6
		if !w.framed() {
			if w.packets {
				w.strange.damaged, w.have = true, 0
				return nil, nil
			}
			return nil, &loss{kind: lossInvalid, begun: true} // where the next frame begins is not known any more
		}
		if w.have < n {
			return nil, nil
		}
		if pdu, err := w.judge(q, w.in[:n]); pdu != nil || err != nil {
			return pdu, err
		}
		w.strange.bytes += n
		if w.strange.frames++; w.strange.flooded() {
			return nil, &loss{kind: lossFlood}
		}
		w.have = copy(w.in[:], w.in[n:w.have])
	}
	return nil, nil
}

// framed reports whether what was read begins like a frame.
func (w *wire) framed() bool {
	n := int(binary.BigEndian.Uint16(w.in[4:])) + 6
	return binary.BigEndian.Uint16(w.in[2:]) == 0 && n >= mbapHeader+1 && n <= mbapHeader+maxPDU
}

// beats cuts off a heartbeat that stands where a frame could, or waits for the rest of one. What begins like a frame is one,
// unless the answer itself stands behind it: heartbeats of zeros look like the header of a frame.
func (w *wire) beats() (cut, wait bool) {
	n := len(w.heartbeat)
	if n == 0 {
		return false, false
	}
	if w.framed() {
		if cut, wait = w.answerBehind(); !cut {
			return false, wait
		}
	}
	if w.have < n {
		return false, bytes.HasPrefix(w.heartbeat, w.in[:w.have])
	}
	if !bytes.HasPrefix(w.in[:w.have], w.heartbeat) {
		return false, false
	}
	w.strange.bytes += n
	w.have = copy(w.in[:], w.in[n:w.have])
	return true, false
}

// answerBehind reports whether heartbeats come first, and then the answer to the request, or may when more has come.
func (w *wire) answerBehind() (is, may bool) {
	rest, ours := w.in[:w.have], [5]byte{byte(w.number >> 8), byte(w.number)} // and no answer is longer than 255
	if bytes.HasPrefix(rest, ours[:]) {
		return false, false
	}
	for bytes.HasPrefix(rest, w.heartbeat) {
		rest = rest[len(w.heartbeat):]
		if n := min(len(rest), len(ours)); string(rest[:n]) == string(ours[:n]) {
			if len(rest) > len(ours) && rest[5] > 2 {
				return true, false
			}
			may = may || len(rest) <= len(ours)
		}
	}
	return false, may
}

// quiet reports whether nothing but heartbeats came.
func (w *wire) quiet() bool {
	rest, n := w.in[:w.have], len(w.heartbeat)
	for n > 0 && bytes.HasPrefix(rest, w.heartbeat) {
		rest = rest[n:]
	}
	return n > 0 && bytes.HasPrefix(w.heartbeat, rest)
}

// judge returns the PDU of a frame that answers the request, nil when it answers another.
func (w *wire) judge(q *request, frame []byte) ([]byte, error) {
	id, unit, pdu := binary.BigEndian.Uint16(frame), frame[6], frame[7:]
	right := id == w.number
	switch {
	case right, q.transactions.takes(int(id)):
	case id == 0:
		w.strange.zero = true
		return nil, nil
	case w.number-id <= lateTransactions:
		w.strange.late = true
		w.look(frame, unasked)
		return nil, nil
	default:
		w.strange.foreign = true
		return nil, nil
	}
	if !q.from(unit) {
		if !right {
			return nil, nil
		}
		return nil, &loss{kind: lossUnit, unit: int(unit)}
	}
	if q.fits(pdu) || q.refusal(pdu) {
		return pdu, nil
	}
	if !right {
		return nil, nil
	}
	return nil, &loss{kind: lossInvalid, begun: true}
}

// settle throws away whatever comes until a moment: late answers on a line without transaction ids.
func (w *wire) settle(ctx context.Context, until time.Time) error {
	if err := w.SetReadDeadline(until); err != nil {
		return &loss{kind: lossClosed, cause: err}
	}
	w.have = 0
	for total := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := w.Read(w.in[w.have:])
		w.have += n
		if total += n; total > maxStray {
			return &loss{kind: lossFlood}
		}
		if err != nil || w.have == len(w.in) {
			w.look(w.in[:w.have], unasked)
			w.have = 0
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		default:
			return &loss{kind: lossClosed, cause: err}
		}
	}
}
