package record

import (
	"encoding/binary"
	"errors"
)

// Schema says what the records of one poll group hold: whose they are and what tag each index means.
// It is stored once per segment, so that a backlog decodes without the config that made it.
type Schema struct {
	Device string
	Group  string
	Tags   []Tag
}

// Tag is the part of a tag that travels with its readings.
type Tag struct {
	Name string
	Unit string // engineering unit, "" for none
	Type string // the driver's word for the type, as configured
}

// Bounds of a stored schema; a larger one is refused as damaged.
const (
	MaxTags = 1 << 17 // tags in one group
	maxName = 1 << 12 // bytes of one name
)

const schemaVersion = 1

// ErrSchema means that bytes are not a schema this version can read.
var ErrSchema = errors.New("not a schema: damaged or of a newer version")

// AppendSchema appends the schema's binary form to dst. Names, units and types may have 4096 bytes each and
// there may be MaxTags tags; ParseSchema refuses more.
func AppendSchema(dst []byte, s *Schema) []byte {
	dst = append(dst, schemaVersion)
	dst = appendText(dst, s.Device)
	dst = appendText(dst, s.Group)
	dst = binary.AppendUvarint(dst, uint64(len(s.Tags)))
	for i := range s.Tags {
		t := &s.Tags[i]
		dst = appendText(appendText(appendText(dst, t.Name), t.Unit), t.Type)
	}
	return dst
}

// ParseSchema reads what AppendSchema wrote. It returns ErrSchema for anything else.
func ParseSchema(src []byte) (*Schema, error) {
	if len(src) == 0 || src[0] != schemaVersion {
		return nil, ErrSchema
	}
	p := textParser{src: src[1:]}
	s := &Schema{Device: p.text(), Group: p.text()}
	n := p.count()
	if n > MaxTags || n > uint64(len(p.src))/3 { // a tag takes three bytes at least
		return nil, ErrSchema
	}
	s.Tags = make([]Tag, n)
	for i := range s.Tags {
		s.Tags[i] = Tag{Name: p.text(), Unit: p.text(), Type: p.text()}
	}
	if p.bad || len(p.src) != 0 {
		return nil, ErrSchema
	}
	return s, nil
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

type textParser struct {
	src []byte
	bad bool
}

func (p *textParser) count() uint64 {
	n, w := binary.Uvarint(p.src)
	if w <= 0 {
		p.bad, p.src = true, nil
		return 0
	}
	p.src = p.src[w:]
	return n
}

func (p *textParser) text() string {
	n := p.count()
	if n > maxName || n > uint64(len(p.src)) {
		p.bad, p.src = true, nil
		return ""
	}
	s := string(p.src[:n])
	p.src = p.src[n:]
	return s
}
