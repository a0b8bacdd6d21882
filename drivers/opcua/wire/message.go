package wire

import (
	"encoding/binary"
	"fmt"
	"time"
)

// FirstTick is 1601-01-01, where DateTime begins, in ticks of 100 ns since 1970.
const FirstTick = -116444736000000000

// NoToken is the null node id: the session of a request outside one.
func NoToken() []byte { return []byte{0, 0} }

// AppendHeader appends a service's type id and request header (OPC 10000-4, 7.32).
func AppendHeader(b []byte, service uint16, token []byte, handle uint32, timeout time.Duration) []byte {
	b = append(b, 1, 0, byte(service), byte(service>>8))
	b = append(b, token...)
	b = binary.LittleEndian.AppendUint64(b, uint64(time.Now().UnixNano()/100-FirstTick))
	for _, v := range [...]uint32{handle, 0, 1<<32 - 1, uint32(timeout / time.Millisecond)} { // no diagnostics, no audit id
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return append(b, 0, 0, 0) // no additional header
}

// Response takes a response's type id and header (OPC 10000-4, 7.33). A refusal is a StatusError.
func (r *Reader) Response(want uint16) error {
	n := r.ExpandedNodeID() // the specification has a NodeId, some servers this
	known := n.Kind == 'i' && n.NS == 0 && n.URI == nil && (n.Number == uint32(want) || n.Number == serviceFault)
	if r.Err == nil && !known {
		return ProtocolError(fmt.Sprintf("the server answered with message %d of namespace %d, not with %d", n.Number, n.NS, want))
	}
	r.Clock = int64(r.U64())
	r.U32() // our handle; the request id has been checked
	status := r.U32()
	if r.Err == nil && status>>31 != 0 {
		return StatusError(status)
	}
	r.DiagnosticInfo()
	for range r.Count(4) { // string table
		r.Bytes()
	}
	r.ExtensionObject()
	if r.Err == nil && n.Number != uint32(want) {
		return ProtocolError("the server refused a request and did not say why")
	}
	return r.Err
}
