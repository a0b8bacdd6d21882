package opcua

import (
	"errors"
	"fmt"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
)

// statusError is a request that the server refused as a whole.
type statusError ua.StatusCode

func (e statusError) Error() string { return statusText(ua.StatusCode(e)) }

// timeoutError says that a request was not answered in time. The link is down then: a late answer
// is never taken for another's.
type timeoutError time.Duration

func (e timeoutError) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(e)) }

// protocolError says that the connection is lost, or that the server broke the protocol in a way that
// leaves no trust in what follows.
type protocolError string

func (e protocolError) Error() string { return string(e) }

// closedError says that the server or something on the way ended the connection: see drivers.ErrClosed.
type closedError string

func (e closedError) Error() string { return string(e) }

// Is makes errors.Is find drivers.ErrClosed.
func (e closedError) Is(target error) bool { return target == drivers.ErrClosed }

// malformedError says that the body of an answer is not what it should be. The answer was read to its end
// and the link is good: one value may be the cause.
type malformedError string

func (e malformedError) Error() string { return "the server's answer is malformed: " + string(e) }

// tooMuch reports whether the server refused a request for its size.
func tooMuch(err error) bool {
	var code statusError
	if !errors.As(err, &code) {
		return false
	}
	switch ua.StatusCode(code) {
	case ua.StatusBadTooManyOperations, ua.StatusBadRequestTooLarge, ua.StatusBadResponseTooLarge,
		ua.StatusBadEncodingLimitsExceeded, ua.StatusBadTCPMessageTooLarge, ua.StatusBadOutOfMemory:
		return true
	}
	return false
}

// splittable reports whether fewer nodes in one request may succeed where these failed while the link is
// good: the request was too much, or one of its values could not be encoded or decoded. Every error
// not known to be so means that the link is down.
func splittable(err error) bool {
	var malformed malformedError
	if errors.As(err, &malformed) {
		return true
	}
	var code statusError
	if !errors.As(err, &code) {
		return false
	}
	switch ua.StatusCode(code) {
	case ua.StatusBadEncodingError, ua.StatusBadDecodingError, ua.StatusBadInternalError, ua.StatusBadUnexpectedError:
		return true
	}
	return tooMuch(err)
}

// caught makes a panic an error: the other devices shall poll on.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = protocolError(fmt.Sprintf("BUG: the OPC UA driver panicked: %v", p))
	}
}
