package opcua

import (
	"encoding/binary"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

// Bounds of what a server says of itself.
const (
	maxToken     = 4096 // bytes of the session's authentication token, which every request repeats
	maxEndpoints = 64   // endpoints that are looked at; the rest is passed over
	maxUsers     = 32   // ways to log in, of each endpoint
)

// getEndpoints is a GetEndpoints request behind its header (OPC 10000-4, 5.4.4).
type getEndpoints struct {
	URL      string
	Locales  []string
	Profiles []string
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
	endpoints   []endpoint
	signature   []byte
}

// session takes a CreateSession response behind its header.
func (r *reader) session() (s session) {
	r.NodeID() // names the session to others
	from := r.B
	r.NodeID()
	s.token = from[:len(from)-len(r.B)]
	s.timeout = r.F64()
	s.nonce = r.Bytes()
	s.certificate = r.Bytes()
	s.endpoints = r.endpoints()
	for n := r.Count(8); n > 0 && r.Err == nil; n-- { // software certificates, which nobody uses
		r.Bytes()
		r.Bytes()
	}
	r.Bytes() // algorithm
	s.signature = r.Bytes()
	if r.Err == nil && len(s.token) > maxToken {
		r.Fail("it holds a session token of %d bytes, over %d", len(s.token), maxToken)
	}
	return s
}

// endpoints takes an array of EndpointDescriptions (OPC 10000-4, 7.14).
func (r *reader) endpoints() (all []endpoint) {
	for n := r.Count(1); n > 0 && r.Err == nil; n-- {
		if e := r.endpoint(); len(all) < maxEndpoints && r.Err == nil {
			all = append(all, e)
		}
	}
	return all
}

func (r *reader) endpoint() (e endpoint) {
	e.url = string(r.Bytes())
	e.server = string(r.Bytes())
	r.Bytes() // product
	e.name = string(r.LocalizedText())
	r.U32()   // application type
	r.Bytes() // gateway
	r.Bytes() // discovery
	for n := r.Count(4); n > 0 && r.Err == nil; n-- {
		r.Bytes()
	}
	e.certificate = append([]byte(nil), r.Bytes()...)
	e.mode = wire.Mode(r.U32())
	e.uri = string(r.Bytes())
	e.policy = wire.PolicyByURI(e.uri)
	for n := r.Count(4); n > 0 && r.Err == nil; n-- {
		u := userPolicy{id: string(r.Bytes()), kind: ua.UserTokenType(r.U32())}
		r.Bytes() // type and URL of an issued token
		r.Bytes()
		if u.security = string(r.Bytes()); len(e.users) < maxUsers && r.Err == nil {
			e.users = append(e.users, u)
		}
	}
	e.transport = string(r.Bytes())
	r.U8() // security level, by the server's own scale
	return e
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
