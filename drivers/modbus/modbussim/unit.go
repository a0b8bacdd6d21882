package modbussim

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// Unit is the four tables of one unit id. All 65536 addresses of each exist and are 0 until set; ranges
// that do not exist are made with a Fault.
type Unit struct {
	id     uint8
	served atomic.Uint64
	fill   atomic.Pointer[func(Request, []byte)]
	name   atomic.Pointer[[3]string]

	mu        sync.RWMutex
	registers [Input + 1][]byte // wire order; nil = all 0
	bits      [Discrete + 1][]byte
}

// Served is how many registers and bits of this unit were in right answers.
func (u *Unit) Served() uint64 { return u.served.Load() }

// SetRegisters sets consecutive registers at once: no answer holds some old and some new ones.
// Addresses past 65535 are dropped.
func (u *Unit) SetRegisters(t Table, addr uint16, values ...uint16) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.registers[t] == nil {
		u.registers[t] = make([]byte, 2<<16)
	}
	dst := u.registers[t][2*int(addr):]
	for i, v := range values {
		if 2*i < len(dst) {
			binary.BigEndian.PutUint16(dst[2*i:], v)
		}
	}
}

// SetBits sets consecutive coils or discrete inputs at once. Addresses past 65535 are dropped.
func (u *Unit) SetBits(t Table, addr uint16, values ...bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bits[t] == nil {
		u.bits[t] = make([]byte, 1<<16)
	}
	dst := u.bits[t][addr:]
	for i, v := range values[:min(len(values), len(dst))] {
		dst[i] = 0
		if v {
			dst[i] = 1
		}
	}
}

// Fill lets f make the values of every later answer instead of the tables; nil goes back to the tables.
// f writes them to dst as on the wire: registers big-endian, bits packed from bit 0 of the first byte on.
// dst holds zeros. Connections call f each from its own goroutine.
func (u *Unit) Fill(f func(q Request, dst []byte)) {
	if f == nil {
		u.fill.Store(nil)
		return
	}
	u.fill.Store(&f)
}

func (u *Unit) read(q Request, dst []byte) {
	clear(dst)
	if f := u.fill.Load(); f != nil {
		(*f)(q, dst)
		return
	}
	u.mu.RLock()
	defer u.mu.RUnlock()
	if !q.Table.Bits() {
		if r := u.registers[q.Table]; r != nil {
			copy(dst, r[2*int(q.Addr):])
		}
		return
	}
	if b := u.bits[q.Table]; b != nil {
		for i, v := range b[q.Addr : int(q.Addr)+int(q.Count)] {
			dst[i/8] |= v << (i % 8)
		}
	}
}

// Held returns what the unit holds, as on the wire for registers (two bytes each), and one byte of 0 or 1 for each bit.
func (u *Unit) Held(t Table, addr uint16, count int) []byte {
	u.mu.RLock()
	defer u.mu.RUnlock()
	if t.Bits() {
		dst := make([]byte, count)
		if b := u.bits[t]; b != nil {
			copy(dst, b[addr:])
		}
		return dst
	}
	dst := make([]byte, 2*count)
	if r := u.registers[t]; r != nil {
		copy(dst, r[2*int(addr):])
	}
	return dst
}
