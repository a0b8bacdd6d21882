package buffer

import "encoding/binary"

// parser reads what the append functions of encoding/binary wrote. After the first thing that does not
// fit, bad is set and everything reads as zero.
type parser struct {
	src []byte
	bad bool
}

func (p *parser) fail() { p.bad, p.src = true, nil }

func (p *parser) byte() byte {
	if len(p.src) == 0 {
		p.fail()
		return 0
	}
	c := p.src[0]
	p.src = p.src[1:]
	return c
}

func (p *parser) uint64() uint64 {
	if len(p.src) < 8 {
		p.fail()
		return 0
	}
	n := binary.BigEndian.Uint64(p.src)
	p.src = p.src[8:]
	return n
}

func (p *parser) uvarint() uint64 {
	n, w := binary.Uvarint(p.src)
	if w <= 0 {
		p.fail()
		return 0
	}
	p.src = p.src[w:]
	return n
}

func (p *parser) varint() int64 {
	n, w := binary.Varint(p.src)
	if w <= 0 {
		p.fail()
		return 0
	}
	p.src = p.src[w:]
	return n
}

// count reads a number of things that take at least size bytes each.
func (p *parser) count(size int) int {
	n := p.uvarint()
	if n > uint64(len(p.src)/size) {
		p.fail()
		return 0
	}
	return int(n)
}

// bytes reads a length and so many bytes; they alias the source.
func (p *parser) bytes() []byte {
	n := p.count(1)
	if p.bad {
		return nil
	}
	out := p.src[:n]
	p.src = p.src[n:]
	return out
}

func appendBytes[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
