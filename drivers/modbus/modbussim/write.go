package modbussim

import "encoding/binary"

// The functions that write (Modbus Application Protocol V1.1b3, 6).
const (
	writeCoil      = 5
	writeRegister  = 6
	writeCoils     = 15
	writeRegisters = 16
	maskRegister   = 22
	readWrite      = 23

	readWriteHead = header + 10 // what of function 23 stands before the values
)

// refuseWrite returns the exception code that a write earns by itself, 0 for none.
func refuseWrite(frame []byte, q Request) byte {
	limit, want := 1, request
	switch q.Write {
	case writeCoils:
		limit, want = 1968, request+1+(int(q.Count)+7)/8
	case writeRegisters:
		limit, want = 123, request+1+2*int(q.Count)
	case maskRegister:
		want = request + 2
	case readWrite:
		return refuseReadWrite(frame, q)
	}
	switch {
	case len(frame) != want || q.Count == 0 || int(q.Count) > limit:
		return 3
	case int(q.Addr)+int(q.Count) > 1<<16:
		return 2
	}
	return 0
}

// refuseReadWrite is likewise for function 23, whose answer has bounds, too.
func refuseReadWrite(frame []byte, q Request) byte {
	if len(frame) < readWriteHead {
		return 3
	}
	from, count := int(binary.BigEndian.Uint16(frame[8:])), int(binary.BigEndian.Uint16(frame[10:]))
	switch {
	case len(frame) != readWriteHead+2*int(q.Count) || int(frame[readWriteHead-1]) != 2*int(q.Count) || q.Count == 0 || q.Count > 121 || count == 0 || count > 125:
		return 3
	case int(q.Addr)+int(q.Count) > 1<<16 || from+count > 1<<16:
		return 2
	}
	return 0
}

// write does what a frame says and returns the answer.
func (u *Unit) write(q Request, frame []byte) []byte {
	data := frame[request-2:]
	switch q.Write {
	case writeCoil:
		u.SetBits(Coil, q.Addr, data[0] == 0xff)
	case writeRegister:
		u.SetRegisters(Holding, q.Addr, binary.BigEndian.Uint16(data))
	case maskRegister:
		u.mask(q.Addr, binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:]))
		return frame
	case writeCoils:
		for i := range q.Count {
			u.SetBits(Coil, q.Addr+i, frame[request+1+int(i)/8]>>(i%8)&1 == 1)
		}
	case writeRegisters:
		words := make([]uint16, q.Count)
		for i := range words {
			words[i] = binary.BigEndian.Uint16(frame[request+1+2*i:])
		}
		u.SetRegisters(Holding, q.Addr, words...)
	case readWrite:
		words := make([]uint16, q.Count)
		for i := range words {
			words[i] = binary.BigEndian.Uint16(frame[readWriteHead+2*i:])
		}
		u.SetRegisters(Holding, q.Addr, words...)
		return u.readBack(frame)
	}
	answer := append([]byte(nil), frame[:request]...)
	answer[4], answer[5] = 0, request-6
	return answer
}

// readBack returns the answer to function 23: what the unit holds now where the frame reads.
func (u *Unit) readBack(frame []byte) []byte {
	q := Request{Unit: frame[6], Table: Holding, Addr: binary.BigEndian.Uint16(frame[8:]), Count: binary.BigEndian.Uint16(frame[10:])}
	n := q.bytes()
	answer := append([]byte{frame[0], frame[1], 0, 0, 0, byte(3 + n), frame[6], readWrite, byte(n)}, make([]byte, n)...)
	u.read(q, answer[header+2:])
	return answer
}

// mask sets a register to (register AND and) OR (or AND NOT and): function 22.
func (u *Unit) mask(addr, and, or uint16) {
	u.mu.Lock()
	old := uint16(0)
	if r := u.registers[Holding]; r != nil {
		old = binary.BigEndian.Uint16(r[2*int(addr):])
	}
	u.mu.Unlock()
	u.SetRegisters(Holding, addr, old&and|or&^and)
}
