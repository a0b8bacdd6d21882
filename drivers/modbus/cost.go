package modbus

import (
	"fmt"
	"time"

	"millrace/drivers"
)

// What nobody can know from a config. Measured devices answer a request on a serial line after 1 to 50 ms, on a network after
// 1 to 30 ms.
const (
	serialAnswer  = 5 * time.Millisecond
	networkAnswer = 10 * time.Millisecond
)

// characters is how many bytes a request and its answer take on the line: base without values, and for each byte of values.
func (f framing) characters() (base, value int) {
	switch f {
	case rtu:
		return 8 + 5, 1 // unit, function, address, count, checksum; unit, function, length, checksum
	case ascii:
		return 17 + 11, 2 // the same in hex digits, with a colon, CR and LF
	}
	return 12 + 9, 1
}

// cost is about how long one more register takes on the line, and how long a request does without registers: what the planner
// weighs. On a network, where nobody knows what stands behind it, 0.
func (e *endpoint) cost() (register, request time.Duration) {
	if e.network != netSerial {
		return 0, 0
	}
	base, value := e.framing.characters()
	c := e.serial.character()
	request = time.Duration(base)*c + serialAnswer
	if e.framing == rtu {
		request += 2 * e.serial.silence() // before the request and before the answer
	}
	return time.Duration(2*value) * c, request
}

// characterTime is how long the characters of a request and its answer take on a serial line.
func (e *endpoint) characterTime(q *request) time.Duration {
	if e.network != netSerial {
		return 0
	}
	base, value := e.framing.characters()
	return time.Duration(base+value*q.want) * e.serial.character()
}

// gap is how many registers that nobody asked for cost no more than another request. A serial line stands behind a network where
// frames of serial lines are spoken, or several units answer.
func (l *link) gap() int {
	register, request := l.cost()
	switch {
	case register > 0:
		return min(int(request/register), 124)
	case l.framing != mbap || l.several:
		return gapBehindSerial
	}
	return defaultMaxGap
}

// Cost estimates what one poll of a group asks of the line: see drivers.Coster.
func (d *driver) Cost(ref drivers.Ref) drivers.Cost {
	g := d.groups[ref.Device][ref.Group]
	base, value := d.link.framing.characters()
	c := drivers.Cost{Assumes: fmt.Sprintf("the device takes %v to answer a request", serialAnswer)}
	if d.link.network != netSerial {
		c.Assumes = fmt.Sprintf("a request takes %v there and back", networkAnswer)
	}
	for _, s := range g.spans {
		for _, b := range s.blocks {
			if b.reason != "" || s.area.reason != "" {
				continue // left out until it is asked again
			}
			c.Requests++
			c.Bytes += base + value*b.bytes()
			c.Time += d.link.time(b)
		}
	}
	if n := d.link.connections; n > 1 && c.Requests > 0 { // all take the same time there
		c.Time = c.Time / time.Duration(c.Requests) * time.Duration((c.Requests+n-1)/n)
	}
	if d.link.closeAfter {
		c.Time += networkAnswer + d.link.pace.connect
	}
	return c
}

// Requests returns how many a poll makes: see drivers.Planner.
func (d *driver) Requests(ref drivers.Ref) int { return d.Cost(ref).Requests }

// bytes is how many bytes of values the answer to a block has.
func (b *block) bytes() int {
	if b.table.bits() {
		return int(b.count+7) / 8
	}
	return 2 * int(b.count)
}

// time is how long the line is taken by a block, the pause after it included.
func (l *link) time(b *block) time.Duration {
	if l.network != netSerial {
		return networkAnswer + l.pace.between
	}
	register, request := l.cost()
	return request + time.Duration(b.bytes())*register/2 + max(l.pace.between-l.lineSilence(), 0)
}

// LineTimes returns how long a character takes on the serial line of a url, and how long a device there takes to answer as far as
// the estimates go: what a simulated device needs to know. Both are 0 where there is no serial line.
func LineTimes(url string) (character, answer time.Duration) {
	e, m := parseURL(url)
	if m != nil || e.network != netSerial {
		return 0, 0
	}
	answer = serialAnswer
	if e.framing == rtu {
		answer += e.serial.silence() // by which the device knows that the request has ended
	}
	return e.serial.character(), answer
}
