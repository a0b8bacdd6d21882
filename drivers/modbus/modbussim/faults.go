package modbussim

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// Kind is what a fault does to the answer of a request.
type Kind uint8

// The kinds of fault. "The right answer" is the one the device would give without the fault.
const (
	Exception        Kind = iota // answers with exception Code
	Delay                        // gives the right answer after Wait
	Silence                      // reads the request and says nothing
	CloseAt                      // writes N bytes of the right answer, then hangs up
	Partial                      // writes N bytes of the right answer and no more
	Drip                         // writes the right answer one byte each Wait
	WrongTransaction             // gives the right answer under another transaction id
	WrongProtocol                // gives the right answer under protocol id 7
	WrongUnit                    // gives the right answer in the name of the next unit id
	WrongFunction                // gives the right answer under the next function code
	WrongCount                   // says N in the byte count field; the frame stays as long as it is
	ShortValues                  // gives the right answer less its last two bytes, in a consistent frame
	LongValues                   // gives the right answer and two bytes more, in a consistent frame
	Length                       // says N in the length field of the header
	StaleBefore                  // gives the previous answer once more, then the right one
	StaleInstead                 // gives the previous answer once more and no other
	Garbage                      // writes N random bytes (from Seed) and no more
	Flood                        // writes answers to other transactions without end
	CloseAfter                   // gives the right answer and hangs up
	Hasty                        // says nothing to a request less than Wait after the last answer to anybody
	Deaf                         // says nothing for Wait after a connect
	ZeroTransaction              // gives the right answer under transaction id 0
	JunkAfter                    // gives the right answer and N random bytes (from Seed) after it
	Spoil                        // gives the right answer with one bit wrong in byte N of its frame, from 0 on
	LineNoise                    // writes N random bytes (from Seed) before the right answer
)

// Fault is something that goes wrong on demand. Of several that match a request the first injected strikes.
type Fault struct {
	Kind  Kind
	Match func(Request) bool // which requests; nil = all
	Skip  int                // lets so many matching requests pass first
	Times int                // strikes so often; 0 = until removed
	Every int                // strikes each Every-th of them only; 0 = each
	Code  byte               // Exception
	Wait  time.Duration      // Delay, Drip
	N     int                // bytes or count, see Kind
	Seed  uint64             // Garbage
}

// OfUnit matches the requests to one unit id.
func OfUnit(id uint8) func(Request) bool {
	return func(q Request) bool { return q.Unit == id }
}

// Touching matches the requests to a unit that read any of the addresses first to last of a table.
func Touching(id uint8, t Table, first, last uint16) func(Request) bool {
	return func(q Request) bool {
		return q.Unit == id && q.Table == t && q.Addr <= last && int(q.Addr)+int(q.Count) > int(first)
	}
}

type fault struct {
	Fault
	seen atomic.Int64
}

// Inject adds a fault and returns a function that removes it.
func (s *Server) Inject(f Fault) (remove func()) {
	one := &fault{Fault: f}
	s.edit(func(all []*fault) []*fault { return append(all, one) })
	return func() {
		s.edit(func(all []*fault) []*fault {
			return slices.DeleteFunc(all, func(f *fault) bool { return f == one })
		})
	}
}

// Mend removes every fault.
func (s *Server) Mend() { s.faults.Store(nil) }

func (s *Server) edit(f func([]*fault) []*fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*fault
	if now := s.faults.Load(); now != nil {
		all = slices.Clone(*now) // requests read the old list without a lock
	}
	all = f(all)
	if len(all) == 0 {
		s.faults.Store(nil)
		return
	}
	s.faults.Store(&all)
}

// strike returns the fault that the request meets, nil for none.
func strike(all []*fault, q Request) *fault {
	for _, f := range all {
		if f.Match != nil && !f.Match(q) {
			continue
		}
		n := int(f.seen.Add(1)) - f.Skip
		if n <= 0 || f.Every > 1 && n%f.Every != 0 {
			continue
		}
		if f.Times == 0 || n <= f.Times*max(f.Every, 1) {
			return f
		}
	}
	return nil
}

// fault answers one frame wrongly. It is false when the connection must end.
func (c *conn) fault(f *fault, frame []byte, q Request) bool {
	if !c.flush() {
		return false
	}
	switch f.Kind {
	case Exception:
		c.exception(frame, f.Code)
		return true
	case Silence:
		return true
	case Delay:
		if !c.sleep(f.Wait) {
			return false
		}
		c.right(frame, q)
		return true
	case StaleBefore:
		c.out = append(c.out, c.last...)
		c.right(frame, q)
		return true
	case StaleInstead:
		c.out = append(c.out, c.last...)
		return true
	case CloseAfter:
		c.closing = true
		c.right(frame, q)
		return true
	case Hasty:
		if since := time.Since(time.Unix(0, c.server.answered.Load())); since >= f.Wait {
			c.right(frame, q)
		}
		return true
	case Deaf:
		if time.Since(c.since) >= f.Wait {
			c.right(frame, q)
		}
		return true
	case JunkAfter:
		c.right(frame, q)
		return c.flush() && c.raw(garbage(f.Seed, f.N))
	case LineNoise:
		if !c.raw(garbage(f.Seed, f.N)) {
			return false
		}
		c.right(frame, q)
		return true
	case Spoil:
		c.out = append(c.out, c.forged(frame, q)...)
		c.damaging = f.N + 1
		return true
	case Garbage:
		c.out = append(c.out, garbage(f.Seed, f.N)...)
		return true
	case Flood:
		return c.flood(frame, q)
	}
	return c.damaged(f, c.forged(frame, q))
}

// forged returns the right answer without entering it in the account: what follows makes it useless.
func (c *conn) forged(frame []byte, q Request) []byte {
	u := c.server.units[q.Unit].Load()
	if code := refuse(frame, q, u); code != 0 {
		return []byte{frame[0], frame[1], 0, 0, 0, 3, frame[6], frame[7] | 0x80, code}
	}
	if q.Write == readWrite {
		return u.readBack(frame)
	}
	if q.Write != 0 {
		return append([]byte(nil), frame[:min(len(frame), request)]...)
	}
	n := q.bytes()
	a := append([]byte{frame[0], frame[1], 0, 0, 0, 0, q.Unit, byte(q.Table), byte(n)}, make([]byte, n)...)
	binary.BigEndian.PutUint16(a[4:], uint16(3+n))
	u.read(q, a[9:])
	return a
}

// damaged writes the answer with the damage that the fault names.
func (c *conn) damaged(f *fault, a []byte) bool {
	switch f.Kind {
	case CloseAt:
		c.out = append(c.out, a[:min(f.N, len(a))]...)
		c.flush()
		return false
	case Partial:
		a = a[:min(f.N, len(a))]
	case Drip:
		return c.drip(a, f.Wait)
	case WrongTransaction:
		a[1]++
	case ZeroTransaction:
		a[0], a[1] = 0, 0
	case WrongProtocol:
		a[3] = 7
	case WrongUnit:
		a[6]++
	case WrongFunction:
		a[7]++
	case WrongCount:
		a[8] = byte(f.N)
	case ShortValues:
		a = resize(a, -2)
	case LongValues:
		a = resize(a, 2)
	case Length:
		binary.BigEndian.PutUint16(a[4:], uint16(f.N))
	}
	c.out = append(c.out, a...)
	return true
}

// resize makes the answer by bytes longer, or shorter by what values there are, and its length field and
// byte count agree.
func resize(a []byte, by int) []byte {
	by = max(by, 9-len(a))
	a = append(a, 0xee, 0xee)[:len(a)+by]
	binary.BigEndian.PutUint16(a[4:], uint16(len(a)-6))
	a[8] = byte(len(a) - 9)
	return a
}

func (c *conn) drip(a []byte, wait time.Duration) bool {
	for i := range a {
		c.out = append(c.out, a[i])
		if !c.flush() || !c.sleep(wait) {
			return false
		}
	}
	return true
}

// flood writes answers to other transactions until the client hangs up.
func (c *conn) flood(frame []byte, q Request) bool {
	a := c.forged(frame, q)
	for {
		binary.BigEndian.PutUint16(a, binary.BigEndian.Uint16(a)+1)
		if a[0] == frame[0] && a[1] == frame[1] {
			continue
		}
		c.out = append(c.out, a...)
		if len(c.out) > 32<<10 && !c.flush() {
			return false
		}
	}
}

// sleep is false when the connection ended meanwhile.
func (c *conn) sleep(d time.Duration) bool {
	select {
	case <-c.done:
		return false
	case <-time.After(d):
		return true
	}
}

func garbage(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// raw writes bytes as they are.
func (c *conn) raw(b []byte) bool {
	_ = c.socket.SetWriteDeadline(time.Now().Add(write))
	_, err := c.socket.Write(b)
	return err == nil
}
