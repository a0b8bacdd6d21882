// Package telemetry owns the nouns that drivers speak: Tag, Reading, Value and Quality. Every other package
// speaks them too; this one imports none of ours.
package telemetry

import "math"

// Quality says how far a reading can be trusted, after OPC UA Part 8 (good, uncertain, bad).
type Quality uint8

// The qualities. Their numbers are stored on disk: append, never renumber.
const (
	Good Quality = iota
	Uncertain
	Bad
)

// String returns the quality's word as it stands in messages and on pages.
func (q Quality) String() string {
	switch q {
	case Good:
		return "good"
	case Uncertain:
		return "uncertain"
	}
	return "bad"
}

// Label is one name and value that an integrator gives a device or tag (site, line, asset number).
type Label struct{ Name, Value string }

// Reading is one value of one tag with its quality and source time. A bad reading has
// Value.Kind == KindNone and a Reason; an uncertain one may have both a value and a Reason.
type Reading struct {
	Value   Value
	Reason  string  // why the quality is not good, in words; "" when good
	Time    int64   // source time: microseconds since 1970-01-01 UTC; 0 from a driver = the time of the poll
	Tag     uint32  // index into the tags of the group (Schema.Tags, Group.Tags)
	Quality Quality //
}

// BadReading returns the reading that a tag yields when it could not be read: quality bad, no value.
func BadReading(tag int, at int64, reason string) Reading {
	return Reading{Tag: uint32(tag), Time: at, Quality: Bad, Reason: reason}
}

// Tag is one named value of one device as the config describes it. Address, Type and Order are
// read by the driver alone.
type Tag struct {
	Name        string
	Address     string
	Type        string // the driver's word for the type, "" for the driver's default
	Unit        string // engineering unit, carried along, "" for none
	Description string
	Labels      []Label           // sorted by name, nil for none
	Scale       float64           // value = raw*Scale + Offset; 0 and 1 both mean "not scaled"
	Offset      float64           //
	Options     map[string]string // the driver's own keys (its Protocol.TagOptions), nil for none
}

// Details are what a device says of a tag, "" where it says nothing or the config says it.
type Details struct {
	Unit, Description string
	Range             Range // before scaling
}

// Range is what a tag's values are normally within, in its unit (OPC 10000-8, 5.3.2.3: EURange); values beyond it may come all the same. The zero Range is none.
type Range struct{ Low, High float64 }

// Known reports whether the range is one: finite, and not empty.
func (r Range) Known() bool {
	return -math.MaxFloat64 <= r.Low && r.Low < r.High && r.High <= math.MaxFloat64
}

// Scaled reports whether readings of the tag are scaled. A scaled float32 stays KindFloat32, every other
// number becomes KindFloat64.
func (t *Tag) Scaled() bool { return t.Offset != 0 || (t.Scale != 0 && t.Scale != 1) }
