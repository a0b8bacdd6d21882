// Package format says how records become messages. A format is a folder with one constructor; package jsonmsg is the
// first. The publisher makes one Encoder a session, because births, aliases and sequence numbers of a session begin anew.
package format

import (
	"millrace/drivers/telemetry"
	"millrace/gateway/link"
	"millrace/gateway/record"
	"millrace/gateway/values"
)

// Format makes the messages of one destination. It is immutable and safe for concurrent use.
type Format interface {
	// Will returns what the receiver is to publish when a session ends without a farewell, nil for nothing.
	Will() *link.Message
	// Subscriptions returns the topic filters that the format wants to hear, nil for none.
	Subscriptions() []string
	// Open returns the encoder of one session. v holds the last reading of every tag, nil when nobody keeps them; waiting
	// is the schemas of the records that wait in the buffer.
	Open(v *values.Table, waiting []*record.Schema) Encoder
}

// Encoder makes the messages of one session. One goroutine calls it.
type Encoder interface {
	// Hello appends what is to be sent before anything else: births, states.
	Hello(dst []link.Message) []link.Message
	// Encode appends the messages of one unit: 1 to n records become 1 to m messages with one acknowledgement. Topics and
	// payloads are valid until the next call. An error means that the unit can never be sent.
	Encode(dst []link.Message, recs []Record) ([]link.Message, error)
	// Topic returns where the records of a schema go, for people and for the circuit breaker; "" when it cannot be said.
	Topic(s *record.Schema) string
	// Batch is how many records, at most, a unit may have; >= 1.
	Batch() int
	// Take looks at a message from the receiver and says what it asks for.
	Take(m link.Message) (Event, bool)
}

// Record is one record as a format gets it.
type Record struct {
	Epoch      string
	Seq        uint64
	Historical bool           // this sending is of the backlog
	Schema     *record.Schema // one pointer for all records of a stream
	Record     *record.Record // nil for a gap record
	Gap        *Gap           // not nil: what is missing
	Time       int64          // µs since 1970 by the gateway's clock: of the poll, or of the gap record
}

// Gap says which readings of a device will never arrive.
type Gap struct {
	From, To          int64    // µs since 1970: the oldest and the newest of them; From 0 when the beginning is not known, both when nothing is
	FirstSeq, LastSeq uint64   // the sequence numbers of their records
	Count             uint64   // how many readings
	Unknown           bool     // Count is a guess: more may be missing, and some of it may have arrived
	Cause             string   // why, in words
	Reason            string   // more of that; "" = nothing
	Tags              []string // only these can be missing; none = any of the device
}

// Event is what a receiver asks for. One field is set.
type Event struct {
	Rebirth bool     // say Hello again
	Host    string   // the state of a host application: "online" or "offline"
	Command *Command // write a value
}

// Command is a wish to write a value to equipment; package command decides.
type Command struct {
	ID          string // of the asker, comes back with the answer
	Device, Tag string
	Value       telemetry.Value
}
