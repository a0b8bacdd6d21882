package modbussim

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// packing is how frames lie on the wire. Inside, every frame is one of Modbus TCP.
type packing uint8

const (
	plain packing = iota // Modbus TCP
	packRTU
	packASCII
)

func packingOf(scheme string) packing {
	switch {
	case strings.HasPrefix(scheme, "rtu"):
		return packRTU
	case strings.HasPrefix(scheme, "ascii"):
		return packASCII
	}
	return plain
}

// takePacked answers every whole request in the bytes. What is no frame is noise and skipped.
func (c *conn) takePacked(in []byte) (rest []byte, ok bool) {
	for len(in) > 0 {
		body, n := c.packing.first(in)
		if n == 0 {
			if len(in) > 4<<10 {
				in = nil // noise only
			}
			break
		}
		in = in[n:]
		c.came += n
		if body == nil {
			continue
		}
		frame := append([]byte{0, 1, 0, 0, 0, byte(len(body))}, body...)
		if !c.answer(frame) {
			return nil, false
		}
	}
	return in, c.flush()
}

// first returns the unit and PDU of the frame that the bytes begin with and its length; no body says that so many bytes
// are noise, no length that more bytes are needed.
func (p packing) first(in []byte) (body []byte, n int) {
	if p == packASCII {
		return firstASCII(in)
	}
	n = lengthRTU(in)
	if len(in) < n {
		return nil, 0
	}
	if crc(in[:n-2]) != binary.LittleEndian.Uint16(in[n-2:]) {
		return nil, 1
	}
	return in[:n-2], n
}

// lengthRTU is how long the frame of a request is that begins like this, or more than there is of it.
func lengthRTU(in []byte) int {
	if len(in) < 7 && !(len(in) >= 4 && in[1] == reportServerID) {
		return 8
	}
	switch in[1] {
	case reportServerID:
		return 4
	case encapsulated:
		return 7
	case writeCoils, writeRegisters:
		return 9 + int(in[6])
	case maskRegister:
		return 10
	case readWrite:
		if len(in) < 11 {
			return 11
		}
		return 13 + int(in[10])
	}
	return 8
}

func firstASCII(in []byte) (body []byte, n int) {
	start := bytes.IndexByte(in, ':')
	if start < 0 {
		return nil, len(in)
	}
	end := bytes.Index(in[start:], []byte("\r\n"))
	if end < 0 {
		return nil, 0
	}
	b, err := hex.DecodeString(string(in[start+1 : start+end]))
	if err != nil || len(b) < 3 || lrc(b) != 0 {
		return nil, start + end + 2
	}
	return b[:len(b)-1], start + end + 2
}

// pack returns c.out as it goes on the wire.
func (c *conn) pack() []byte {
	c.packed = c.packed[:0]
	for out := c.out; len(out) > header; {
		n := min(6+int(binary.BigEndian.Uint16(out[4:])), len(out))
		switch body := out[6:n]; c.packing {
		case packRTU:
			start := len(c.packed)
			c.packed = append(c.packed, body...)
			c.packed = binary.LittleEndian.AppendUint16(c.packed, crc(c.packed[start:]))
		case packASCII:
			c.packed = fmt.Appendf(c.packed, ":%X%02X\r\n", body, byte(-lrc(body)))
		default:
			c.packed = append(c.packed, out[:n]...)
		}
		out = out[n:]
	}
	if c.damaging > 0 && c.damaging <= len(c.packed) {
		c.packed[c.damaging-1] ^= 1 << (c.damaging % 8)
	}
	c.damaging = 0
	return c.packed
}

func lrc(b []byte) (sum byte) {
	for _, v := range b {
		sum += v
	}
	return sum
}

// crc is the checksum of RTU frames, bit by bit: slow, and so not the driver's own code over again.
func crc(b []byte) uint16 {
	v := uint16(0xffff)
	for _, c := range b {
		v ^= uint16(c)
		for range 8 {
			odd := v&1 == 1
			if v >>= 1; odd {
				v ^= 0xa001
			}
		}
	}
	return v
}
