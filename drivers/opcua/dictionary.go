package opcua

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

// maxSchemaFields bounds the fields of all types of a dictionary.
const maxSchemaFields = 1 << 14

// dictionary is a type dictionary, by which servers before OPC UA 1.04 describe structures (OPC 10000-3, annex C; OPC 10000-5, annex D).
type dictionary struct {
	types  map[string]*schemaType
	made   map[string]*dataType
	reason string // why it cannot be read
}

// schemaType is a StructuredType or EnumeratedType of the schema.
type schemaType struct {
	enumeration bool
	bits        int // of an enumeration
	fields      []schemaField
}

// schemaField is a Field, or an EnumeratedValue.
type schemaField struct {
	name, typ         string
	length, switchBy  string // fields that say how many there are, and whether it is there
	value, bitsLength int
}

// parseDictionary reads a schema. Its size is bounded by the message that it came in.
func parseDictionary(text []byte) (*dictionary, string) {
	d := &dictionary{types: map[string]*schemaType{}, made: map[string]*dataType{}}
	in := xml.NewDecoder(bytes.NewReader(text))
	var at *schemaType
	fields := 0
	for {
		token, err := in.RawToken()
		if err != nil {
			if len(d.types) == 0 {
				return nil, "its type dictionary cannot be read"
			}
			return d, ""
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch e.Name.Local {
		case "StructuredType", "EnumeratedType":
			at = &schemaType{enumeration: e.Name.Local == "EnumeratedType", bits: number(attribute(e, "LengthInBits"), 32)}
			d.types[attribute(e, "Name")] = at
		case "Field", "EnumeratedValue":
			if fields++; at == nil || len(d.types) > maxTypes || len(at.fields) == maxFields || fields > maxSchemaFields {
				return nil, "its type dictionary is too large"
			}
			at.fields = append(at.fields, schemaField{name: attribute(e, "Name"), typ: attribute(e, "TypeName"), length: attribute(e, "LengthField"),
				switchBy: attribute(e, "SwitchField"), value: number(attribute(e, "SwitchValue")+attribute(e, "Value"), 0), bitsLength: number(attribute(e, "Length"), 1)})
		}
	}
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

func number(text string, otherwise int) int {
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		return int(n)
	}
	return otherwise
}

// schemaBuiltins are the types of the schema for OPC UA Binary and of OPC UA itself that have no fields.
var schemaBuiltins = map[string]byte{
	"Boolean": wire.TypeBoolean, "SByte": wire.TypeSByte, "Byte": wire.TypeByte, "Int16": wire.TypeInt16, "UInt16": wire.TypeUInt16, "Int32": wire.TypeInt32,
	"UInt32": wire.TypeUInt32, "Int64": wire.TypeInt64, "UInt64": wire.TypeUInt64, "Float": wire.TypeFloat, "Double": wire.TypeDouble, "String": wire.TypeString,
	"CharArray": wire.TypeString, "DateTime": wire.TypeDateTime, "Guid": wire.TypeGUID, "ByteString": wire.TypeByteString, "XmlElement": wire.TypeXMLElement,
	"NodeId": wire.TypeNodeID, "ExpandedNodeId": wire.TypeExpandedNodeID, "StatusCode": wire.TypeStatusCode, "QualifiedName": wire.TypeQualifiedName,
	"LocalizedText": wire.TypeLocalizedText, "ExtensionObject": wire.TypeExtensionObject, "DataValue": wire.TypeDataValue, "Variant": wire.TypeVariant,
	"Duration": wire.TypeDouble, "UtcTime": wire.TypeDateTime, "LocaleId": wire.TypeString,
}

// dataType returns a type by its name with or without a prefix, "opc:" and "ua:" for those of OPC UA.
func (d *dictionary) dataType(name string) *dataType {
	prefix, local, found := strings.Cut(name, ":")
	if !found {
		prefix, local = "", name
	}
	if kind, ok := schemaBuiltins[local]; ok && (prefix == "opc" || prefix == "ua") {
		return &builtinTypes[kind]
	}
	if made := d.made[local]; made != nil {
		return made
	}
	made := &dataType{name: clip(local)}
	d.made[local] = made // before its fields, which may be of it
	switch s := d.types[local]; {
	case d.reason != "":
		made.reason = d.reason
	case s == nil || prefix == "opc" || prefix == "ua":
		made.reason = fmt.Sprintf("the type dictionary has no %s", clip(name))
	case s.enumeration:
		made.enumerate(s)
	default:
		d.build(made, s)
	}
	return made
}

func (t *dataType) enumerate(s *schemaType) {
	switch s.bits {
	case 8:
		t.builtin = wire.TypeByte
	case 16:
		t.builtin = wire.TypeUInt16
	case 32:
		t.builtin = wire.TypeInt32
	default:
		t.reason = fmt.Sprintf("the type dictionary has an enumeration of %d bits", s.bits)
	}
	t.names = &names{of: map[int64]string{}}
	for _, f := range s.fields {
		t.names.of[int64(f.value)] = f.name
	}
}

// build makes a structure: bits that say which fields are there become its mask, and fields that say how long others are go.
func (d *dictionary) build(made *dataType, s *schemaType) {
	out := &structure{}
	var mask []string // the names of its bits
	lengths, optional := map[string]bool{}, 0
	for _, f := range s.fields {
		if f.length != "" {
			lengths[f.length] = true
		}
		out.union = out.union || f.value > 0 && f.switchBy != ""
	}
	for i, f := range s.fields {
		switch {
		case f.typ == "opc:Bit":
			for range min(max(f.bitsLength, 0), 33) {
				mask = append(mask, f.name)
			}
			continue
		case lengths[f.name], out.union && i == 0:
			continue
		case out.union && (f.value != len(out.fields)+1 || s.fields[0].name != f.switchBy || f.length != ""):
			made.reason = "the type dictionary has a union whose fields are not in order"
			return
		}
		one := field{name: f.name, of: d.dataType(f.typ), rank: -1}
		if f.length != "" {
			one.rank = 1
		}
		if one.of.reason != "" && one.of.structure == nil {
			made.reason = fmt.Sprintf("its field %q: %s", clip(f.name), one.of.reason)
			return
		}
		if f.switchBy != "" && !out.union {
			if optional >= len(mask) || mask[optional] != f.switchBy {
				made.reason = "the type dictionary has optional fields that are not in the order of their bits"
				return
			}
			optional++
			one.optional = true
		}
		out.fields = append(out.fields, one)
	}
	if out.optional = len(mask) > 0; out.optional && len(mask) != 32 {
		made.reason = fmt.Sprintf("the type dictionary has a mask of %d bits, not 32", len(mask))
		return
	}
	made.structure = out
}

// fromDictionary asks for the type dictionary that describes an encoding.
func (t *types) fromDictionary(ctx context.Context, encoding []byte) *dataType {
	descriptions, reason := t.related(ctx, encoding, id.HasDescription, forward)
	if len(descriptions) == 0 {
		return &dataType{reason: reason}
	}
	v, reason := t.attribute(ctx, descriptions[0].node, ua.AttributeIDValue)
	if reason != "" {
		return &dataType{reason: reason}
	}
	r := newReader(v.Variant)
	if r.U8() != wire.TypeString {
		return &dataType{reason: "its description names no type"}
	}
	name := string(r.Bytes())
	owners, reason := t.related(ctx, descriptions[0].node, id.HasComponent, inverse)
	if len(owners) == 0 {
		return &dataType{reason: reason}
	}
	return t.dictionary(ctx, owners[0].node).dataType(name)
}

// dictionary reads a type dictionary, once.
func (t *types) dictionary(ctx context.Context, node []byte) *dictionary {
	key := spellBytes(node)
	if d := t.dictionaries[key]; d != nil {
		return d
	}
	d := &dictionary{reason: "the server has more type dictionaries than are kept", made: map[string]*dataType{}}
	if len(t.dictionaries) == maxDictionaries {
		return d
	}
	if v, reason := t.attribute(ctx, node, ua.AttributeIDValue); reason != "" {
		d.reason = reason
	} else if r := newReader(v.Variant); r.U8() != wire.TypeByteString {
		d.reason = "its type dictionary is no text"
	} else if read, why := parseDictionary(r.Bytes()); why != "" {
		d.reason = why
	} else {
		d = read
	}
	t.dictionaries[key] = d
	return d
}
