package wire

import (
	"errors"
	"fmt"
	"time"
)

// StatusError is a request that the server refused as a whole: the number of an OPC UA status code.
type StatusError uint32

// Error returns the number; the caller has the words for it.
func (e StatusError) Error() string { return fmt.Sprintf("status 0x%08X", uint32(e)) }

// TimeoutError says that a request was not answered in time. The channel is closed then: a late answer
// is never taken for another's.
type TimeoutError time.Duration

// Error says how long was waited.
func (e TimeoutError) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(e)) }

// ProtocolError says that the server broke the protocol in a way that leaves no trust in what follows.
type ProtocolError string

// Error says what the server did.
func (e ProtocolError) Error() string { return string(e) }

// MalformedError says that the body of an answer is not what it should be. The answer was read to its end
// and the channel is good: one value may be the cause.
type MalformedError string

// Error says what is wrong with the answer.
func (e MalformedError) Error() string { return "the server's answer is malformed: " + string(e) }

// RenewalError says that the channel's token could not be renewed. The channel is of no use then, also when the server has refused in words.
type RenewalError struct{ Err error }

// Error says what failed, and why.
func (e *RenewalError) Error() string { return "renew the secure channel: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *RenewalError) Unwrap() error { return e.Err }

// ErrClosed is what every request yields once the channel was closed from this side.
var ErrClosed = errors.New("the connection is closed")
