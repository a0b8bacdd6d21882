package opcua

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/gopcua/opcua/id"

	"millrace/drivers/opcua/wire"
)

// Bounds of what a server says of its data types, over all of one session.
const (
	maxTypes  = 1024    // data types, and encodings of them
	maxFields = 512     // of a structure
	maxNames  = 4096    // of an enumeration
	maxKept   = 4 << 20 // bytes of all names, with 64 for each
)

// dataType is a type as its values stand in a message.
type dataType struct {
	name      string
	builtin   byte       // of wire's types; of an enumeration, of its numbers
	structure *structure // nil = it is none
	names     *names     // of an enumeration; nil = none
	encoding  []byte     // that a structure's values name; nil = not known
	reason    string     // why its values cannot be read, "" when they can
}

// structure is the fields of a structure, those that it inherits first.
type structure struct {
	fields   []field
	optional bool // some are, and values begin with a mask of those that are there
	union    bool // values have one of them
}

type field struct {
	name     string
	of       *dataType
	rank     int32 // 1 = array, more = matrix, else neither
	optional bool
}

// list names the fields, the first few.
func (s *structure) list() string {
	const most = 12
	var all []string
	for i := range s.fields[:min(len(s.fields), most)] {
		all = append(all, s.fields[i].name)
	}
	if more := len(s.fields) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(all, ", "), more)
	}
	return strings.Join(all, ", ")
}

// builtinTypes are the built-in types, by their numbers.
var builtinTypes = func() (all [wire.TypeDiagnosticInfo + 1]dataType) {
	for i := range all {
		all[i].builtin = byte(i)
	}
	return all
}()

// standard returns what a data type of OPC UA itself is on the wire; 0 when the server has to say.
func standard(number uint32) byte {
	switch number {
	case id.Number, id.Integer, id.UInteger:
		return wire.TypeVariant
	case id.Enumeration:
		return wire.TypeInt32
	case id.IntegerID, id.Counter:
		return wire.TypeUInt32
	case id.Duration:
		return wire.TypeDouble
	case id.UtcTime:
		return wire.TypeDateTime
	case id.NumericRange, id.LocaleID:
		return wire.TypeString
	case id.Union:
		return wire.TypeExtensionObject
	}
	if number <= wire.TypeDiagnosticInfo {
		return byte(number)
	}
	return 0
}

// described is a StructureDefinition (OPC 10000-3, 8.48) as it stands in a message.
type described struct {
	encoding []byte // of the NodeId
	kind     uint32 // see the kinds
	fields   []describedField
}

type describedField struct {
	name     string
	dataType []byte // of the NodeId
	rank     int32
	optional bool
}

// The kinds of structures (OPC 10000-3, 8.49). In the last two an optional field is one whose values may be of subtypes.
const (
	kindPlain = iota
	kindOptional
	kindUnion
	kindSubtypes
	kindUnionSubtypes
)

// nodeID takes a node id and returns its bytes, which stay in the message.
func (r *reader) nodeID() []byte {
	from := r.B
	r.NodeID()
	return from[:len(from)-len(r.B)]
}

// structureDefinition takes the body of a StructureDefinition.
func (r *reader) structureDefinition() (d described, reason string) {
	d.encoding = bytes.Clone(r.nodeID())
	r.NodeID() // base type; its fields are among these
	d.kind = r.U32()
	n := r.Count(4 + 1 + 2 + 4 + 4 + 4 + 1)
	switch {
	case n > maxFields:
		return d, fmt.Sprintf("it has %d fields, over %d", n, maxFields)
	case d.kind > kindUnionSubtypes:
		return d, fmt.Sprintf("it is a structure of the unknown kind %d", d.kind)
	}
	for range n {
		f := describedField{name: string(r.Bytes())}
		r.LocalizedText()
		f.dataType = bytes.Clone(r.nodeID())
		f.rank = int32(r.U32())
		r.Take(4 * r.Count(4))
		r.U32()
		f.optional = r.U8() != 0
		d.fields = append(d.fields, f)
		if r.Err != nil {
			return d, r.Err.Error()
		}
	}
	return d, ""
}

// enumDefinition takes the body of an EnumDefinition (OPC 10000-3, 8.50).
func (r *reader) enumDefinition() (all *names, reason string) {
	n := r.Count(8 + 1 + 1 + 4)
	if n > maxNames {
		return nil, fmt.Sprintf("it has %d texts, over %d", n, maxNames)
	}
	all = &names{of: make(map[int64]string, n)}
	for range n {
		value := int64(r.U64())
		text := string(r.LocalizedText())
		r.LocalizedText()
		if name := string(r.Bytes()); text == "" {
			text = name
		}
		all.of[value] = text
	}
	if r.Err != nil {
		return nil, r.Err.Error()
	}
	return all, ""
}

// enumTexts takes the value of EnumStrings, an array of LocalizedText, or of EnumValues, one of EnumValueType (OPC 10000-3, 8.40); nil when it is
// neither.
func enumTexts(variant []byte) *names {
	r := newReader(variant)
	mask := r.U8()
	if mask&wire.MaskArray == 0 {
		return nil
	}
	n := r.Count(1)
	if n > maxNames {
		return nil
	}
	all := &names{of: make(map[int64]string, n)}
	for i := range n {
		switch mask & wire.MaskType {
		case wire.TypeLocalizedText:
			if text := string(r.LocalizedText()); text != "" { // else there is no such value
				all.of[int64(i)] = text
			}
		case wire.TypeExtensionObject:
			_, body := r.extension()
			value := int64(body.U64())
			all.of[value] = string(body.LocalizedText())
			if body.Err != nil {
				return nil
			}
		default:
			return nil
		}
	}
	if r.Err != nil || n == 0 {
		return nil
	}
	return all
}

// extension takes a structure (OPC 10000-6, 5.2.2.15) and returns its type's number in namespace 0 and its body; 0 for another, and for one
// without bytes.
func (r *reader) extension() (number uint32, body reader) {
	n := r.ExpandedNodeID()
	switch r.U8() {
	case 1:
		if body = newReader(r.Bytes()); n.Kind == 'i' && n.NS == 0 && n.URI == nil {
			number = n.Number
		}
	case 2:
		r.Bytes()
	}
	return number, body
}
