package modbussim

import "encoding/binary"

// The functions that write (Modbus Application Protocol V1.1b3, 6).
const (
	writeCoil      = 5
	writeRegister  = 6
	writeCoils     = 15
	writeRegisters = 16
	maskRegister   = 22
	readWrite      = 23 // refused, but its frames have an end
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
	}
	switch {
	case len(frame) != want || q.Count == 0 || int(q.Count) > limit:
		return 3
	case int(q.Addr)+int(q.Count) > 1<<16:
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
	}
	answer := append([]byte(nil), frame[:request]...)
	answer[4], answer[5] = 0, request-6
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
