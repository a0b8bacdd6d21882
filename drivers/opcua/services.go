package opcua

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

const (
	noLength = 1<<32 - 1 // of a string or array that is not there
	maxToken = 4096      // bytes of the session's authentication token, which every request repeats
)

// noToken is the null node id: the token of a request outside a session.
var noToken = []byte{0, 0}

// appendHeader appends a service's type id and request header (OPC 10000-4, 7.32).
func appendHeader(b []byte, service uint16, token []byte, handle uint32, timeout time.Duration) []byte {
	b = append(b, 1, 0, byte(service), byte(service>>8))
	b = append(b, token...)
	b = binary.LittleEndian.AppendUint64(b, uint64(time.Now().UnixNano()/100-firstTick))
	for _, v := range [...]uint32{handle, 0, noLength, uint32(timeout / time.Millisecond)} { // no diagnostics, no audit id
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return append(b, 0, 0, 0) // no additional header
}

func appendText(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

// response takes a response's type id and header (OPC 10000-4, 7.33). A refusal is a statusError.
func (r *reader) response(want uint16) error {
	n := r.expandedNodeID() // the specification has a NodeId, some servers this
	known := n.kind == 'i' && n.ns == 0 && n.uri == nil && (n.number == uint32(want) || n.number == id.ServiceFault_Encoding_DefaultBinary)
	if r.err == nil && !known {
		return protocolError(fmt.Sprintf("the server answered with message %d of namespace %d, not with %d", n.number, n.ns, want))
	}
	r.u64() // the server's clock
	r.u32() // our handle; the request id has been checked
	status := r.u32()
	if r.err == nil && status>>31 != 0 {
		return statusError(status)
	}
	r.diagnosticInfo()
	for range r.count(4) { // string table
		r.bytes()
	}
	r.extensionObject()
	if r.err == nil && n.number != uint32(want) {
		return protocolError("the server refused a request and did not say why")
	}
	return r.err
}

// createSession is a CreateSession request behind its header (OPC 10000-4, 5.6.2).
type createSession struct {
	Client      *ua.ApplicationDescription
	ServerURI   string
	EndpointURL string
	SessionName string
	Nonce       []byte
	Certificate []byte
	Timeout     float64 // milliseconds
	MaxResponse uint32
}

// session is what a CreateSession response says that we use. Its slices stay in the message.
type session struct {
	token       []byte  // the authentication token, encoded
	timeout     float64 // milliseconds
	nonce       []byte
	certificate []byte
	user        *userPolicy // of the wanted type, nil when there is none
}

// userPolicy is one way to log in that the server offers.
type userPolicy struct {
	id, security string
	certificate  []byte // the endpoint's, nil for none
}

// session takes a CreateSession response behind its header.
func (r *reader) session(wanted ua.UserTokenType) (s session) {
	r.nodeID() // names the session to others
	from := r.b
	r.nodeID()
	s.token = from[:len(from)-len(r.b)]
	s.timeout = r.f64()
	s.nonce = r.bytes()
	s.certificate = r.bytes()
	for n := r.count(1); n > 0 && r.err == nil && s.user == nil; n-- {
		s.user = r.endpoint(wanted)
	}
	if r.err == nil && len(s.token) > maxToken {
		r.fail("it holds a session token of %d bytes, over %d", len(s.token), maxToken)
	}
	return s
}

// endpoint takes an EndpointDescription (OPC 10000-4, 7.14) and returns its first user policy of a type, if
// it is an endpoint without security.
func (r *reader) endpoint(wanted ua.UserTokenType) (user *userPolicy) {
	r.bytes() // url
	r.bytes() // ApplicationDescription: URIs, name, type, URIs of gateway and discovery, discovery URLs
	r.bytes()
	r.localizedText()
	r.u32()
	r.bytes()
	r.bytes()
	for range r.count(4) {
		r.bytes()
	}
	certificate := r.bytes()
	mode := ua.MessageSecurityMode(r.u32())
	r.bytes() // security policy
	for n := r.count(1); n > 0 && r.err == nil; n-- {
		id, kind := r.bytes(), ua.UserTokenType(r.u32())
		r.bytes() // type and URL of an issued token
		r.bytes()
		security := r.bytes()
		if r.err == nil && user == nil && kind == wanted && mode == ua.MessageSecurityModeNone {
			user = &userPolicy{string(id), string(security), certificate}
		}
	}
	r.bytes() // transport profile
	r.u8()    // security level
	return user
}

// activateSession is an ActivateSession request behind its header (OPC 10000-4, 5.6.3).
type activateSession struct {
	Signature      *ua.SignatureData
	Software       []*ua.SignedSoftwareCertificate
	Locales        []string
	Identity       *ua.ExtensionObject
	TokenSignature *ua.SignatureData
}

// closeSession is a CloseSession request behind its header (OPC 10000-4, 5.6.4).
type closeSession struct{ DeleteSubscriptions bool }

// encode returns the body of a request from one of the structs above.
func encode(body any) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		encoded, err := ua.Encode(body)
		return append(b, encoded...), err
	}
}

// encodeRead returns the body of a Read request (OPC 10000-4, 5.10.2) for encoded ReadValueIds: values
// from the device, not from the server's cache, with both timestamps.
func encodeRead(nodes [][]byte) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		b = binary.LittleEndian.AppendUint64(b, 0) // MaxAge
		b = binary.LittleEndian.AppendUint32(b, uint32(ua.TimestampsToReturnBoth))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(nodes)))
		for _, n := range nodes {
			b = append(b, n...)
		}
		return b, nil
	}
}
