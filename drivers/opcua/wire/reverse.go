package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf8"
)

// Bounds of a ReverseHello, which are the specification's.
const (
	maxReverseField = 4096
	maxReverseHello = 8 + 2*(4+maxReverseField)
)

// ReverseHello takes the message with which a server that makes the connection itself says who it is: its application URI, and the URL of the
// endpoint that it wants to be asked for (OPC 10000-6, 7.1.2.6). It reads no byte more, within the deadline that the caller has set.
func ReverseHello(in io.Reader) (server, endpoint string, err error) {
	var b [maxReverseHello]byte
	if _, err := io.ReadFull(in, b[:8]); err != nil {
		return "", "", err
	}
	size := binary.LittleEndian.Uint32(b[4:])
	switch kind := string(b[:4]); {
	case kind == "HELF":
		return "", "", ProtocolError("the caller is a client; only servers call here")
	case kind != "RHEF":
		return "", "", ProtocolError(fmt.Sprintf("the caller sent %q, not a ReverseHello", b[:8]))
	case size < 16 || size > maxReverseHello:
		return "", "", ProtocolError(fmt.Sprintf("the caller sent a ReverseHello of %d bytes; 16 to %d are allowed", size, maxReverseHello))
	}
	if _, err := io.ReadFull(in, b[8:size]); err != nil {
		return "", "", err
	}
	r := Reader{B: b[8:size]}
	server, endpoint = string(r.Bytes()), string(r.Bytes())
	switch {
	case r.Err != nil || len(r.B) > 0:
		return "", "", ProtocolError("the caller sent a malformed ReverseHello")
	case len(server) > maxReverseField || len(endpoint) > maxReverseField || !utf8.ValidString(server+endpoint):
		return "", "", ProtocolError(fmt.Sprintf("the caller names itself in more than %d bytes, or not in text", maxReverseField))
	}
	return server, endpoint, nil
}
