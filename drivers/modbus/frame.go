package modbus

import (
	"encoding/binary"
	"encoding/hex"
)

// The function codes that the driver uses (Modbus Application Protocol V1.1b3, 6).
const (
	readCoils          = 1
	readDiscretes      = 2
	readHolding        = 3
	readInput          = 4
	writeCoil          = 5
	writeRegister      = 6
	writeCoils         = 15
	writeRegisters     = 16
	maskRegister       = 22
	readWriteRegisters = 23
	exceptionBit       = 0x80
	maxPDU             = 253
	mbapHeader         = 7
	maxFrame           = 2*(maxPDU+2) + 5 // the longest frame of all, in ASCII
	maxStray           = 16 << 10         // bytes that a peer may send unasked before its connection is given up
	maxForeign         = 64               // whole frames of others, likewise
	lateTransactions   = 64               // how far back a transaction id counts as a late answer
	anyUnit, anyNumber = -1, -1
)

// request is one request to a unit: its PDU and what the answer to it must look like.
type request struct {
	unit uint8
	pdu  []byte
	want int // bytes of values in the answer to a read, -1: the answer repeats the request's first bytes
	echo int // how many bytes of the request an answer to a write repeats

	writes  bool // it must not be made twice
	brief   bool // to a silent unit: see patience
	telling bool // silence says something of the connection: not about a register that may be refused so
	patient bool // the unit is there: a fence that is lost is worth another one
	once    bool // nobody asks again: it is made though a fence is lost
	fenced  bool // it follows a fence: it is not made too soon on purpose
	varies  bool // how long the answer is stands in the answer itself (functions 17 and 43)

	// What else is taken for an answer: a unit id beside the own, anyUnit for every one; a transaction id likewise.
	units        acceptance
	transactions acceptance
}

// acceptance is a number that is taken besides the right one.
type acceptance struct {
	given bool
	value int // anyNumber = every one
}

func (a acceptance) takes(n int) bool { return a.given && (a.value == anyNumber || a.value == n) }

// length is how long the PDU of the right answer is that begins like this.
func (q *request) length(pdu []byte) int {
	if q.varies {
		return varying(pdu)
	}
	if q.want >= 0 {
		return 2 + q.want
	}
	return q.echo
}

// mirrored reports whether the right answer is the request itself, as that to a write with function 5, 6 or 22 is.
func (q *request) mirrored() bool { return q.writes && q.want < 0 && q.echo == len(q.pdu) }

// from reports whether an answer may come from a unit id.
func (q *request) from(unit byte) bool { return unit == q.unit || q.units.takes(int(unit)) }

// fits reports whether a PDU is the right answer: of the same function, and as long as it says and as was asked for.
func (q *request) fits(pdu []byte) bool {
	if len(pdu) != q.length(pdu) || pdu[0] != q.pdu[0] {
		return false
	}
	if q.varies {
		return true
	}
	if q.want >= 0 {
		return int(pdu[1]) == q.want
	}
	return string(pdu[:q.echo]) == string(q.pdu[:q.echo])
}

// refusal reports whether a PDU is an exception answer to the request.
func (q *request) refusal(pdu []byte) bool { return len(pdu) == 2 && pdu[0] == q.pdu[0]|exceptionBit }

// pack appends the frame of a request to dst.
func (f framing) pack(dst []byte, transaction uint16, q *request) []byte {
	start := len(dst)
	switch f {
	case mbap:
		dst = binary.BigEndian.AppendUint16(dst, transaction)
		dst = append(dst, 0, 0, 0, byte(len(q.pdu)+1), q.unit)
		return append(dst, q.pdu...)
	case rtu:
		dst = append(append(dst, q.unit), q.pdu...)
		return binary.LittleEndian.AppendUint16(dst, crc16(dst[start:]))
	}
	sum := q.unit
	dst = appendHex(append(dst, ':'), q.unit)
	for _, b := range q.pdu {
		sum += b
		dst = appendHex(dst, b)
	}
	return append(appendHex(dst, -sum), '\r', '\n')
}

func appendHex(dst []byte, b byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(dst, digits[b>>4], digits[b&15])
}

// findRTU looks for the right answer anywhere in what came: noise before a frame is common where a line turns round, and
// a frame without the right checksum is noise too.
func (q *request) findRTU(in []byte) []byte {
	for i := range in {
		rest := in[i:]
		if len(rest) < 5 {
			return nil
		}
		if !q.from(rest[0]) {
			continue
		}
		n := q.length(rest[1:])
		if rest[1] == q.pdu[0]|exceptionBit {
			n = 2
		}
		if len(rest) < n+3 || !q.fits(rest[1:1+n]) && !q.refusal(rest[1:1+n]) {
			continue
		}
		if crc16(rest[:n+1]) == binary.LittleEndian.Uint16(rest[n+1:]) {
			return rest[1 : 1+n]
		}
	}
	return nil
}

// begunRTU returns how much of the right answer stands at the end of what came, and how long it is; 0 for nothing.
func (q *request) begunRTU(in []byte) (have, whole int) {
	for i := range in {
		rest := in[i:]
		if !q.from(rest[0]) || len(rest) == 1 && i > 0 {
			continue
		}
		whole = q.length(q.pdu) + 3
		switch {
		case len(rest) > 1 && rest[1] == q.pdu[0]|exceptionBit:
			whole = 5
		case len(rest) > 1 && rest[1] != q.pdu[0], len(rest) > 2 && q.want >= 0 && int(rest[2]) != q.want:
			continue
		}
		if len(rest) < whole {
			return len(rest), whole
		}
	}
	return 0, 0
}

// other reports whether some whole RTU frame of another unit came, for the words.
func (q *request) other(in []byte) (unit int, ok bool) {
	for i := 0; i+5 <= len(in); i++ {
		n := q.length(in[i+1:])
		if in[i+1] == q.pdu[0]|exceptionBit {
			n = 2
		}
		if in[i] != q.unit && len(in)-i >= n+3 && in[i+1]&^exceptionBit == q.pdu[0] && crc16(in[i:i+n+1]) == binary.LittleEndian.Uint16(in[i+n+1:]) {
			return int(in[i]), true
		}
	}
	return 0, false
}

// findASCII looks for the right answer in what came and decodes it into dst. Without one, unit is that of a frame that were it but for its
// unit, -1 for none.
func (q *request) findASCII(dst, in []byte) (pdu []byte, unit int) {
	unit = -1
	for i := range in {
		if in[i] != ':' {
			continue
		}
		end := i + 1
		for end < len(in) && in[end] != '\r' && in[end] != ':' {
			end++
		}
		if end+1 >= len(in) || in[end] != '\r' || in[end+1] != '\n' || (end-i-1)%2 != 0 || (end-i-1)/2 > len(dst) {
			continue
		}
		n, err := hex.Decode(dst, in[i+1:end])
		if err != nil || n < 4 {
			continue
		}
		var sum byte
		for _, b := range dst[:n] {
			sum += b
		}
		pdu := dst[1 : n-1]
		if sum != 0 || !q.fits(pdu) && !q.refusal(pdu) {
			continue
		}
		if q.from(dst[0]) {
			return pdu, -1
		}
		unit = int(dst[0])
	}
	return nil, unit
}

// crc16 is the checksum of RTU frames (Modbus over Serial Line V1.02, 6.2.2).
func crc16(b []byte) uint16 {
	crc := uint16(0xffff)
	for _, v := range b {
		crc = crc>>8 ^ crcTable[byte(crc)^v]
	}
	return crc
}

// crcTable is the checksum of each byte.
var crcTable = func() (t [256]uint16) {
	for i := range t {
		v := uint16(i)
		for range 8 {
			if v&1 == 1 {
				v = v>>1 ^ 0xa001
			} else {
				v >>= 1
			}
		}
		t[i] = v
	}
	return t
}()
