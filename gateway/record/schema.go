package record

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"

	"millrace/drivers/telemetry"
)

// Schema says what the records of one poll group hold: whose they are and what tag each index means.
// It is stored once per segment, so that a backlog decodes without the config that made it.
type Schema struct {
	Gateway string // the name of the gateway that took the readings; "" in stores of version 1
	Device  string
	Group   string
	Labels  []telemetry.Label // of the device, sorted by name
	Tags    []Tag
	Data    []telemetry.DataType // of each tag after scaling, AnyType until a reading has told; nil = none is known
}

// Tag is the part of a tag that travels with its readings.
type Tag struct {
	Name string
	More *Details // nil = there is nothing to tell; not to be changed, because tags that follow each other share what is equal
}

// Details are what there is to tell of a tag beside its name.
type Details struct {
	Unit        string // engineering unit, "" for none
	Type        string // the driver's word for the type, as configured
	Description string
	Labels      []telemetry.Label // sorted by name
	Range       telemetry.Range   // of its values after scaling, as the device says; Known, or zero for none
}

// Details returns what there is to tell of the tag.
func (t *Tag) Details() Details {
	if t.More == nil {
		return Details{}
	}
	return *t.More
}

func (d *Details) equal(o *Details) bool {
	return d.Unit == o.Unit && d.Type == o.Type && d.Description == o.Description && d.Range == o.Range && slices.Equal(d.Labels, o.Labels)
}

// Describe says what there is to tell of a tag, of the tags before it first.
func (s *Schema) Describe(tag int, d Details) {
	var more *Details
	switch {
	case d.equal(&Details{}):
	case tag > 0 && s.Tags[tag-1].More != nil && d.equal(s.Tags[tag-1].More):
		more = s.Tags[tag-1].More
	default:
		own := d
		more = &own
	}
	s.Tags[tag].More = more
}

// Compact puts the names of the tags into one piece of memory: each alone takes a piece of 16 bytes of its own, or keeps the text beside
// which it was read.
func (s *Schema) Compact() {
	size := 0
	for i := range s.Tags {
		size += len(s.Tags[i].Name)
	}
	var all strings.Builder
	all.Grow(size)
	for i := range s.Tags {
		all.WriteString(s.Tags[i].Name)
	}
	names := all.String()
	for i := range s.Tags {
		n := len(s.Tags[i].Name)
		s.Tags[i].Name, names = names[:n], names[n:]
	}
}

// DataType returns the data type of a tag.
func (s *Schema) DataType(tag int) telemetry.DataType {
	if s.Data == nil {
		return telemetry.AnyType
	}
	return s.Data[tag]
}

// Events says of each tag whether it is of events; nil when none is.
func (s *Schema) Events() []bool {
	if !slices.Contains(s.Data, telemetry.EventType) {
		return nil
	}
	of := make([]bool, len(s.Data))
	for i, t := range s.Data {
		of[i] = t == telemetry.EventType
	}
	return of
}

// Bounds of a stored schema; a larger one is refused as damaged.
const (
	MaxTags   = 1 << 17 // tags in one group
	MaxLabels = 64      // labels of one device or tag
	maxName   = 1 << 12 // bytes of one text
)

const (
	schemaVersion1 = 1 // device, group; of each tag name, unit, type
	schemaVersion2 = 2 // no ranges; still written where there are none
	schemaVersion  = 3
)

// ErrSchema means that bytes are not a schema this version can read.
var ErrSchema = errors.New("not a schema: damaged or of a newer version")

// AppendSchema appends the schema's binary form to dst. Texts may have 4096 bytes each, there may be MaxTags tags and
// MaxLabels labels of each of them; ParseSchema refuses more.
func AppendSchema(dst []byte, s *Schema) []byte {
	version := byte(schemaVersion2)
	if slices.ContainsFunc(s.Tags, func(t Tag) bool { return t.Details().Range.Known() }) {
		version = schemaVersion
	}
	dst = append(dst, version)
	dst = appendText(appendText(appendText(dst, s.Gateway), s.Device), s.Group)
	dst = appendLabels(dst, s.Labels)
	dst = binary.AppendUvarint(dst, uint64(len(s.Tags)))
	for i := range s.Tags {
		t := &s.Tags[i]
		more := t.Details()
		dst = appendText(appendText(appendText(dst, t.Name), more.Unit), more.Type)
		dst = append(dst, byte(s.DataType(i)))
		dst = appendLabels(appendText(dst, more.Description), more.Labels)
		if version == schemaVersion {
			dst = appendRange(dst, more.Range)
		}
	}
	return dst
}

// appendRange appends 0 for none, else 1 and the two ends.
func appendRange(dst []byte, r telemetry.Range) []byte {
	if !r.Known() {
		return append(dst, 0)
	}
	dst = binary.LittleEndian.AppendUint64(append(dst, 1), math.Float64bits(r.Low))
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(r.High))
}

func appendLabels(dst []byte, labels []telemetry.Label) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(labels)))
	for _, l := range labels {
		dst = appendText(appendText(dst, l.Name), l.Value)
	}
	return dst
}

// ParseSchema reads what AppendSchema wrote, in this version or an older one. It returns ErrSchema for anything else.
func ParseSchema(src []byte) (*Schema, error) {
	if len(src) == 0 || src[0] == 0 || src[0] > schemaVersion {
		return nil, ErrSchema
	}
	p := textParser{src: src[1:], version: src[0]}
	s := &Schema{}
	if p.version > schemaVersion1 {
		s.Gateway = p.text()
	}
	s.Device, s.Group = p.text(), p.text()
	if p.version > schemaVersion1 {
		s.Labels = p.labels()
	}
	n := p.count()
	if n > MaxTags || n > uint64(len(p.src))/3 { // a tag takes three bytes at least
		return nil, ErrSchema
	}
	s.Tags = make([]Tag, n)
	for i := range s.Tags {
		name, data, more := p.tag()
		s.Tags[i].Name = name
		s.Describe(i, more)
		if data != telemetry.AnyType && s.Data == nil {
			s.Data = make([]telemetry.DataType, n)
		}
		if s.Data != nil {
			s.Data[i] = data
		}
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
	src     []byte
	version byte
	bad     bool
}

func (p *textParser) tag() (name string, data telemetry.DataType, more Details) {
	name, more.Unit, more.Type = p.text(), p.text(), p.text()
	if p.version == schemaVersion1 || p.bad {
		return name, telemetry.AnyType, more
	}
	if len(p.src) == 0 {
		p.bad = true
		return name, telemetry.AnyType, more
	}
	data, p.src = telemetry.DataType(p.src[0]), p.src[1:]
	more.Description, more.Labels = p.text(), p.labels()
	if p.version > schemaVersion2 {
		more.Range = p.limits()
	}
	return name, data, more
}

// limits reads what appendRange wrote.
func (p *textParser) limits() (r telemetry.Range) {
	switch {
	case len(p.src) > 0 && p.src[0] == 0:
		p.src = p.src[1:]
	case len(p.src) > 16 && p.src[0] == 1:
		r.Low = math.Float64frombits(binary.LittleEndian.Uint64(p.src[1:]))
		r.High = math.Float64frombits(binary.LittleEndian.Uint64(p.src[9:]))
		p.src, p.bad = p.src[17:], p.bad || !r.Known()
	default:
		p.bad, p.src = true, nil
	}
	return r
}

func (p *textParser) labels() []telemetry.Label {
	n := p.count()
	if n > MaxLabels || n > uint64(len(p.src))/2 { // a label takes two bytes at least
		p.bad, p.src = true, nil
		return nil
	}
	var labels []telemetry.Label
	for range n {
		labels = append(labels, telemetry.Label{Name: p.text(), Value: p.text()})
	}
	return labels
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
