package modbus

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/drivers"
)

// damage is one way in which an answer comes to harm.
type damage uint8

const (
	flipBits       damage = iota // one to six bits of the frame; over TCP and UDP of its header, since their checksums guard the rest
	truncate                     // ends early, and then silence or a hang-up
	duplicate                    // comes twice
	lateAnswer                   // comes after the timeout
	olderAnswer                  // the answer to an older transaction before it, or in place of it
	foreignUnit                  // of another unit with other values, before it or in place of it
	wrongFunction                // of another function
	wrongCount                   // says that it holds more or less than it does
	wrongLength                  // more values than were asked for, or fewer
	splitWrites                  // in several pieces with pauses
	garbageBefore                // random bytes before it
	garbageInstead               // random bytes in place of it
	wrongException               // an exception that the device did not mean
	cipherFlip                   // one bit of what TLS has encrypted
	damages
)

var damageNames = [damages]string{"bits flipped", "truncated", "twice", "late", "older transaction", "foreign unit", "wrong function", "wrong count", "wrong length",
	"split", "garbage before", "garbage instead", "exception", "ciphertext flipped"}

// mangler damages a share of the answers of one simulated device.
type mangler struct {
	mu      turn       // an old connection may still be late when the next one is there
	books   sync.Mutex // guards log, sent and wrote; never held over a sleep, because the driver enters its requests, too
	framing framing
	network network
	timeout time.Duration
	spoil   func() // flips a bit of what is written next; nil = there is no TLS
	r       *rand.Rand
	share   int       // of 100 answers that are damaged
	older   [8][]byte // answers of before
	n       int
	log     []string // of the last answers
	asked   [4]byte  // the unit, table and address of the request under way
	sent    []event  // the last requests, when the driver sent them
	wrote   []event  // the last answers, when they were written
	begun   time.Time
	late    time.Time // when an answer was last late

	off        atomic.Bool
	struck     [damages]atomic.Int64
	total      atomic.Int64
	collisions atomic.Int64 // damaged frames whose checksum, or transaction, was right all the same; they are not sent
}

// turn is a mutex that may be held over a sleep in a bubble.
type turn chan struct{}

func (t turn) lock()   { t <- struct{}{} }
func (t turn) unlock() { <-t }

// event is a request, or the answer to it.
type event struct {
	what [4]byte
	at   time.Time
}

// strikes of 100 answers are damaged.
const strikes = 40

// ask notes what the next answer is to: a device that called again may have two connections for a moment.
func (m *mangler) ask(what [4]byte) {
	m.books.Lock()
	defer m.books.Unlock()
	m.asked = what
}

// write is modbussim.Options.Wire.
func (m *mangler) write(to io.Writer, frame []byte) bool {
	m.mu.lock()
	defer m.mu.unlock()
	frame = append([]byte(nil), frame...)
	d := damage(m.r.IntN(int(damages)))
	ok, how := true, "right"
	if m.off.Load() || m.r.IntN(100) >= m.share || !m.harm(d, to, frame) {
		_, err := to.Write(frame)
		ok = err == nil
	} else {
		m.struck[d].Add(1)
		m.total.Add(1)
		how = damageNames[d]
		ok = d != truncate || m.network == netUDP || m.network == netSerial || m.r.IntN(2) == 0
	}
	m.books.Lock()
	m.wrote = append(m.wrote[max(0, len(m.wrote)-99):], event{m.asked, time.Now()})
	m.log = append(m.log[max(0, len(m.log)-9):], fmt.Sprintf("%x… %s at %v", frame[:min(len(frame), 16)], how, time.Since(m.begun).Round(time.Millisecond)))
	m.books.Unlock()
	m.older[m.n%len(m.older)] = frame
	m.n++
	return ok
}

// harm does damage to a frame and writes what comes of it. It is false when the transport does not know such damage, and
// nothing was written then.
func (m *mangler) harm(d damage, to io.Writer, frame []byte) bool {
	numbered := m.framing == mbap
	if !m.knows(d) {
		return false
	}
	switch d {
	case flipBits:
		return m.send(to, m.flipped(frame))
	case truncate:
		return m.send(to, frame[:m.r.IntN(len(frame))])
	case duplicate:
		return m.send(to, frame, frame)
	case lateAnswer:
		if !numbered && time.Since(m.late) < 3*m.timeout {
			return false // what waits behind a late answer is late already
		}
		time.Sleep(m.lateness(numbered))
		m.late = time.Now()
		return m.send(to, frame)
	case olderAnswer:
		old := m.older[m.r.IntN(len(m.older))]
		if old == nil {
			return false
		}
		if m.r.IntN(2) == 0 {
			return m.send(to, old)
		}
		return m.send(to, old, frame)
	case foreignUnit, wrongFunction, wrongLength, wrongCount, wrongException:
		return m.forge(d, to, frame)
	case splitWrites:
		return m.split(to, frame)
	case garbageBefore:
		return m.send(to, m.garbage(), frame)
	case garbageInstead:
		return m.send(to, m.garbage())
	case cipherFlip:
		m.spoil()
		return m.send(to, frame)
	}
	return false
}

// knows reports whether the transport has such damage, and something to know it by.
func (m *mangler) knows(d damage) bool {
	switch d {
	case duplicate: // a pseudo-terminal may bring the second one after the next request
		return m.framing != ascii || m.network != netSerial
	case olderAnswer: // without a transaction id nothing tells it from the right one
		return m.framing == mbap
	case cipherFlip:
		return m.spoil != nil
	}
	return true
}

// lateness is longer than the timeout. Where no transaction id tells a late answer, it is at most one and a half: the driver
// cannot know one later than two, as the README says.
func (m *mangler) lateness(numbered bool) time.Duration {
	if numbered {
		return m.timeout + time.Duration(m.r.Int64N(int64(2*m.timeout)))
	}
	return m.timeout + time.Duration(m.r.Int64N(int64(m.timeout/2)))
}

// send writes the parts at once, as two datagrams where a part is one.
func (m *mangler) send(to io.Writer, parts ...[]byte) bool {
	if m.network == netUDP && m.framing == mbap {
		for _, p := range parts {
			_, _ = to.Write(p)
		}
		return true
	}
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	_, _ = to.Write(all)
	return true
}

func (m *mangler) garbage() []byte {
	b := make([]byte, 1+m.r.IntN(64))
	for i := range b {
		b[i] = byte(m.r.Uint32())
	}
	return b
}

// split writes a frame in up to six pieces, within the timeout.
func (m *mangler) split(to io.Writer, frame []byte) bool {
	for pieces := 2 + m.r.IntN(5); len(frame) > 0; pieces-- {
		n := len(frame)
		if pieces > 1 {
			n = 1 + m.r.IntN(len(frame))
		}
		_, _ = to.Write(frame[:n])
		if frame = frame[n:]; len(frame) > 0 {
			time.Sleep(m.timeout / 20)
		}
	}
	return true
}

// flipped flips one to six bits, once more where the checksum would not show it.
func (m *mangler) flipped(frame []byte) []byte {
	for {
		bad := append([]byte(nil), frame...)
		within := len(bad)
		if m.framing == mbap {
			within = min(within, mbapHeader+2)
		}
		for range 1 + m.r.IntN(6) {
			bad[m.r.IntN(within)] ^= 1 << m.r.IntN(8)
		}
		if string(bad) == string(frame) {
			continue // a bit and back
		}
		ahead := m.framing == mbap && binary.BigEndian.Uint16(bad)-binary.BigEndian.Uint16(frame)-1 < 16 // of a request that may be the next
		if _, whole := m.open(bad); !ahead && (!whole || m.framing == mbap) {
			return bad
		}
		m.collisions.Add(1)
	}
}

// forge makes a whole frame with a right checksum of what the device did not say, and sends it, before the right one at times.
func (m *mangler) forge(d damage, to io.Writer, frame []byte) bool {
	body, _ := m.open(frame)
	if len(body) < 5 {
		return false // an exception already
	}
	body = append([]byte(nil), body...)
	for i := 3; i < len(body); i++ {
		body[i] = byte(m.r.Uint32()) // so that it shows where it is taken for right
	}
	switch d {
	case foreignUnit:
		body[0] += byte(1 + m.r.IntN(255))
	case wrongFunction:
		body[1] = byte(1 + (int(body[1])+m.r.IntN(3))%4)
	case wrongException:
		body = []byte{body[0], body[1] | exceptionBit, byte(m.r.IntN(13))}
	case wrongCount:
		body[2] += byte(1 + m.r.IntN(255))
	case wrongLength:
		if m.r.IntN(2) == 0 && len(body) > 5 {
			body = body[:len(body)-2]
		} else {
			body = append(body, 0xee, 0xee)
		}
		body[2] = byte(len(body) - 3)
	}
	bad := m.seal(frame, body)
	if d == foreignUnit && m.framing != mbap && m.r.IntN(2) == 0 {
		return m.send(to, bad, frame)
	}
	return m.send(to, bad)
}

// open returns the unit and the PDU of a frame, and whether it is whole.
func (m *mangler) open(frame []byte) ([]byte, bool) {
	n := len(frame)
	switch m.framing {
	case mbap:
		return frame[min(6, n):], n > 6
	case rtu:
		return frame[:max(n-2, 0)], n > 2 && slowCRC(frame[:n-2]) == binary.LittleEndian.Uint16(frame[n-2:])
	}
	text, ok := strings.CutSuffix(string(frame), "\r\n")
	b, err := hex.DecodeString(strings.TrimPrefix(text, ":"))
	sum := byte(0)
	for _, v := range b {
		sum += v
	}
	return b[:max(len(b)-1, 0)], ok && err == nil && strings.HasPrefix(text, ":") && sum == 0
}

// seal makes a frame of a unit and PDU, like another one.
func (m *mangler) seal(like, body []byte) []byte {
	switch m.framing {
	case mbap:
		return append(append(append([]byte(nil), like[:4]...), 0, byte(len(body))), body...)
	case rtu:
		return binary.LittleEndian.AppendUint16(append([]byte(nil), body...), slowCRC(body))
	}
	sum := byte(0)
	for _, v := range body {
		sum += v
	}
	return fmt.Appendf(nil, ":%X%02X\r\n", body, -sum)
}

// lately says what happened to the last answers, the last one last.
func (m *mangler) lately() string {
	m.books.Lock()
	defer m.books.Unlock()
	return strings.Join(m.log, ", ")
}

// note keeps when the driver sent a request.
func (m *mangler) note(e *drivers.Exchange) {
	m.books.Lock()
	defer m.books.Unlock()
	m.sent = append(m.sent[max(0, len(m.sent)-99):], event{[4]byte(e.Request[:4]), e.At})
}

// overdue reports whether an answer left since a poll began, or shortly before, more than two timeouts after its request was sent: never by
// the mangler's doing, so the machine was busy with other things.
func (m *mangler) overdue(since time.Time) bool {
	m.books.Lock()
	defer m.books.Unlock()
	sent := append([]event(nil), m.sent...)
	for _, w := range m.wrote {
		for i, s := range sent {
			if s.what != w.what || s.at.After(w.at) || w.at.Sub(s.at) > 8*m.timeout {
				continue
			}
			if w.at.Sub(s.at) > 2*m.timeout && w.at.After(since.Add(-20*m.timeout)) {
				return true
			}
			sent[i].what = [4]byte{} // answered
			break
		}
	}
	return false
}
