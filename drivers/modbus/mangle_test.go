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
	books   sync.Mutex // guards log; never held over a sleep, because the driver enters its requests, too
	framing framing
	network network
	timeout time.Duration
	spoil   func() // flips a bit of what is written next; nil = there is no TLS
	r       *rand.Rand
	share   int       // of 100 answers that are damaged
	older   [8][]byte // answers of before
	n       int
	log     []func() string // of the last answers, and of how the driver took its requests: the text of it is made when somebody asks
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

// strikes of 100 answers are damaged.
const strikes = 40

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
	at := time.Since(m.begun)
	m.log = append(m.log[max(0, len(m.log)-39):], func() string {
		return fmt.Sprintf("%x… %s at %v", frame[:min(len(frame), 16)], how, at.Round(time.Millisecond))
	})
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
		time.Sleep(m.lateness())
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

// lateness is longer than the timeout, mostly by half of it at most, at times by nine.
func (m *mangler) lateness() time.Duration {
	most := m.timeout / 2
	switch {
	case m.framing == mbap:
		most = 2 * m.timeout
	case m.r.IntN(4) == 0:
		most = 9 * m.timeout
	}
	return m.timeout + time.Duration(m.r.Int64N(int64(most)))
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

// lately says what happened to the last answers and requests, the last one last.
func (m *mangler) lately() string {
	m.books.Lock()
	defer m.books.Unlock()
	var lines []string
	for _, text := range m.log {
		lines = append(lines, text())
	}
	return strings.Join(lines, "\n")
}

// note keeps how a request went.
func (m *mangler) note(e *drivers.Exchange) {
	m.books.Lock()
	defer m.books.Unlock()
	at, took, reason := e.At.Sub(m.begun), e.Took, e.Reason
	request, answer := append([]byte(nil), e.Request...), append([]byte(nil), e.Answer[:min(len(e.Answer), 16)]...)
	m.log = append(m.log[max(0, len(m.log)-39):], func() string {
		return fmt.Sprintf("asked %x at %v, after %v: %x %s", request, at.Round(time.Millisecond), took.Round(time.Millisecond), answer, reason)
	})
}
