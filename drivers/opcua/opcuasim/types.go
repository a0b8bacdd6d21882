package opcuasim

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// dataType is a structure or an enumeration of the server's own, with its description (DataTypeDefinition, OPC 10000-3, 8.48 and 8.50).
type dataType struct {
	name     string
	fields   []Field  // of a structure
	texts    []string // of an enumeration, from 0
	encoding node     // of a structure
}

// Field is a field of a structure: of a type of namespace 0, or an array of those.
type Field struct {
	Name  string
	Type  uint32
	Array bool
}

// AddStructure adds the data type "i=<number>" of the first namespace, whose encoding is "i=<number+1>".
func (s *Server) AddStructure(number uint32, name string, fields ...Field) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &dataType{name: name, fields: fields, encoding: s.numbered(number + 1)}
	s.types[s.numbered(number)], s.encodings[t.encoding] = t, s.numbered(number)
}

// AddEnumeration adds the data type "i=<number>" of the first namespace.
func (s *Server) AddEnumeration(number uint32, name string, texts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.types[s.numbered(number)] = &dataType{name: name, texts: texts}
}

func (s *Server) numbered(number uint32) node {
	return node{s.opts.Namespaces[0], fmt.Sprintf("i=%d", number)}
}

// structure returns a value of a structure, by the values of its fields: texts, numbers and arrays of float64. mu is held.
func (s *Server) structure(number uint32, values ...any) any {
	at := s.nodeID(s.numbered(number + 1))
	if at == nil { // its namespace is gone
		return nil
	}
	var body []byte
	for _, v := range values {
		switch v := v.(type) {
		case string:
			body = append(body, text(v)...)
		case []float64:
			body = append(body, words(uint32(len(v)))...)
			for _, x := range v {
				body = binary.LittleEndian.AppendUint64(body, math.Float64bits(x))
			}
		default:
			body, _ = binary.Append(body, binary.LittleEndian, v)
		}
	}
	return &ua.ExtensionObject{EncodingMask: ua.ExtensionObjectBinary, TypeID: ua.NewExpandedNodeID(at, "", 0), Value: raw(body)}
}

// attribute answers for a data type; nil for those of which nothing is said.
func (t *dataType) attribute(s *Server, attribute ua.AttributeID, now time.Time) *ua.DataValue {
	switch attribute {
	case ua.AttributeIDBrowseName:
		return dataValue(&ua.QualifiedName{NamespaceIndex: 2, Name: t.name}, now)
	case ua.AttributeIDIsAbstract:
		return dataValue(false, now)
	case ua.AttributeIDDataTypeDefinition:
	default:
		return nil
	}
	if t.texts != nil {
		d := &ua.EnumDefinition{}
		for i, text := range t.texts {
			d.Fields = append(d.Fields, &ua.EnumField{Value: int64(i), DisplayName: ua.NewLocalizedText(text), Description: &ua.LocalizedText{}, Name: text})
		}
		return dataValue(definition(id.EnumDefinition_Encoding_DefaultBinary, d), now)
	}
	d := &ua.StructureDefinition{DefaultEncodingID: s.nodeID(t.encoding), BaseDataType: ua.NewNumericNodeID(0, id.Structure), StructureType: ua.StructureTypeStructure}
	for _, f := range t.fields {
		rank := int32(-1)
		if f.Array {
			rank = 1
		}
		d.Fields = append(d.Fields, &ua.StructureField{Name: f.Name, DataType: ua.NewNumericNodeID(0, f.Type), ValueRank: rank, Description: &ua.LocalizedText{}})
	}
	return dataValue(definition(id.StructureDefinition_Encoding_DefaultBinary, d), now)
}

func definition(encoding uint32, body any) *ua.ExtensionObject {
	return &ua.ExtensionObject{EncodingMask: ua.ExtensionObjectBinary, TypeID: ua.NewFourByteExpandedNodeID(0, uint16(encoding)), Value: body}
}

// above answers an inverse Browse request: what a data type is derived from, and of which an encoding is. mu is held.
func (s *Server) above(b *ua.BrowseDescription) *ua.BrowseResult {
	key, _ := s.find(b.NodeID)
	at, name := ua.NewNumericNodeID(0, id.Structure), ""
	switch t := s.types[key]; {
	case s.encodings[key] != node{} && b.ReferenceTypeID.IntID() == id.HasEncoding:
		at, name = s.nodeID(s.encodings[key]), s.types[s.encodings[key]].name
	case t == nil:
		return browseType(b)
	case t.texts != nil:
		at = ua.NewNumericNodeID(0, id.Enumeration)
	}
	return &ua.BrowseResult{StatusCode: ua.StatusOK, References: []*ua.ReferenceDescription{{
		ReferenceTypeID: b.ReferenceTypeID, NodeID: ua.NewExpandedNodeID(at, "", 0), BrowseName: &ua.QualifiedName{NamespaceIndex: 2, Name: name},
		DisplayName: &ua.LocalizedText{}, TypeDefinition: ua.NewExpandedNodeID(ua.NewTwoByteNodeID(0), "", 0),
	}}}
}
