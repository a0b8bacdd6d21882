package opcuasim

import (
	"bytes"
	"math/rand/v2"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// Notification is what a hostile server pushes in place of values: the body of a DataChangeNotification.
type Notification struct {
	Name string
	Body []byte
}

// Notifications returns what is wrong in a notification behind which an honest signature stands: they come from whoever has the key, after
// all that protects a channel.
func Notifications() []Notification {
	value := func(body ...byte) []byte { return join(words(1, 0), body) } // one, of the first tag
	random := make([]byte, 4096)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	return []Notification{
		{"2 GB of values", words(0x7fffffff)},
		{"less than no values", words(0x80000000)},
		{"a tag that there is not", join(words(1, 4000000000), []byte{1, 11}, make([]byte, 8), words(0))},
		{"array of 2 GB", value(join([]byte{1, 0x8b}, words(0x7fffffff))...)},
		{"dimensions of 2 GB", value(join([]byte{1, 0xcb}, words(1), make([]byte, 8), words(3, 65535, 65535, 65535))...)},
		{"variants within each other", value(join([]byte{1}, bytes.Repeat(join([]byte{0x98}, words(1)), 10000))...)},
		{"structures within each other", value(join([]byte{1}, bytes.Repeat(join([]byte{22, 1, 0, 1}, words(60000)), 6000))...)},
		{"text of 2 GB", value(join([]byte{1, 12}, words(0x7fffffff))...)},
		{"30,000 values of one tag", join(words(30000), bytes.Repeat(join(words(0), []byte{1, 11}, make([]byte, 8)), 30000), words(0))},
		{"no body", nil},
		{"noise", random},
	}
}

// raw is a structure of which the bytes are given.
type raw []byte

// Encode returns the bytes.
func (r raw) Encode() ([]byte, error) { return r, nil }

// Spoil makes subscriptions push this in place of each notification, nil for the values again.
func (s *Server) Spoil(body *Notification) { s.spoil.Store(body) }

// Spoilt returns how many notifications were spoilt.
func (s *Server) Spoilt() uint64 { return s.spoilt.Load() }

// notification returns what a message with values says.
func (s *Server) notification(values []*ua.MonitoredItemNotification) *ua.ExtensionObject {
	body := s.spoil.Load()
	if body == nil {
		return ua.NewExtensionObject(&ua.DataChangeNotification{MonitoredItems: values})
	}
	s.spoilt.Add(1)
	return &ua.ExtensionObject{EncodingMask: ua.ExtensionObjectBinary, TypeID: ua.NewFourByteExpandedNodeID(0, id.DataChangeNotification_Encoding_DefaultBinary), Value: raw(body.Body)}
}
