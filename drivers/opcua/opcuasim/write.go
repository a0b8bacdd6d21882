package opcuasim

import (
	"time"

	"github.com/gopcua/opcua/ua"
)

// Writable is a variable that keeps what clients write to it.
type Writable struct {
	Value    any           // of a Go type that a variant can hold; nil for none yet
	DataType uint32        // in namespace 0; 0 = the type of Value
	Parent   uint32        // the data type is one of the server's own that is derived from this one; 0 = it is DataType itself
	Rank     int32         // ValueRank; 0 = by Value
	Refuse   uint32        // of every write
	Change   func(any) any // what the machine makes of a written value; nil = it keeps it
}

// derived is the data type, in the server's namespace, of variables with a Parent.
func derived(parent uint32) *ua.NodeID { return ua.NewNumericNodeID(1, parent) }

// AddWritable adds a variable that can be written to the first namespace, with the node id "s=<name>".
func (s *Server) AddWritable(name string, w Writable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := node{s.opts.Namespaces[0], "s=" + name}
	s.writable[key] = &w
	s.nodes[key] = func() any { return w.Value }
}

// Written returns the value that a variable holds, as it was written: the library's variant holds its type.
func (s *Server) Written(name string) any {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.writable[node{s.opts.Namespaces[0], "s=" + name}].Value
}

// Writes returns how many Write requests the server has seen.
func (s *Server) Writes() uint64 { return s.writes.Load() }

func (s *Server) write(r *ua.WriteRequest) (ua.Response, ua.StatusCode) {
	s.writes.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	res := &ua.WriteResponse{Results: make([]ua.StatusCode, len(r.NodesToWrite))}
	for i, w := range r.NodesToWrite {
		res.Results[i] = s.writeNode(w)
	}
	return res, ua.StatusOK
}

func (s *Server) writeNode(r *ua.WriteValue) ua.StatusCode {
	key, ok := s.find(r.NodeID)
	w := s.writable[key]
	switch {
	case !ok || s.nodes[key] == nil:
		return ua.StatusBadNodeIDUnknown
	case r.AttributeID != ua.AttributeIDValue || w == nil:
		return ua.StatusBadNotWritable
	case w.Refuse != 0:
		return ua.StatusCode(w.Refuse)
	case r.Value.EncodingMask != ua.DataValueValue:
		return ua.StatusBadWriteNotSupported
	case w.variant() != nil && w.variant().Type() != r.Value.Value.Type():
		return ua.StatusBadTypeMismatch
	}
	if w.Value = r.Value.Value.Value(); w.Change != nil {
		w.Value = w.Change(w.Value)
	}
	return ua.StatusOK
}

func (w *Writable) variant() *ua.Variant {
	v, err := ua.NewVariant(w.Value)
	if err != nil || w.Value == nil {
		return nil
	}
	return v
}

// attribute answers for the type of a variable; nil for another attribute.
func (w *Writable) attribute(attribute ua.AttributeID, now time.Time) *ua.DataValue {
	v := w.variant()
	switch attribute {
	case ua.AttributeIDDataType:
		t := ua.NewNumericNodeID(0, w.DataType)
		if w.Parent != 0 {
			t = derived(w.Parent)
		} else if w.DataType == 0 && v != nil {
			t = ua.NewNumericNodeID(0, uint32(v.Type()))
		}
		return dataValue(t, now)
	case ua.AttributeIDValueRank:
		rank := w.Rank
		if rank == 0 && v != nil && v.Has(ua.VariantArrayValues) {
			rank = 1
		} else if rank == 0 {
			rank = -1
		}
		return dataValue(rank, now)
	}
	return nil
}

// browseType answers what a data type is derived from.
func browseType(b *ua.BrowseDescription) *ua.BrowseResult {
	result := &ua.BrowseResult{StatusCode: ua.StatusOK}
	if b.NodeID.Namespace() == 1 {
		result.References = []*ua.ReferenceDescription{{
			ReferenceTypeID: b.ReferenceTypeID, NodeID: ua.NewExpandedNodeID(ua.NewNumericNodeID(0, b.NodeID.IntID()), "", 0),
			BrowseName: &ua.QualifiedName{}, DisplayName: &ua.LocalizedText{}, TypeDefinition: ua.NewExpandedNodeID(ua.NewTwoByteNodeID(0), "", 0),
		}}
	}
	return result
}
