package opcua

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gopcua/opcua/ua"
)

// statusError is a request that the server refused as a whole.
type statusError ua.StatusCode

func (e statusError) Error() string { return statusText(ua.StatusCode(e)) }

// timeoutError says that a request was not answered in time. The link is down then: a late answer
// is never taken for another's.
type timeoutError time.Duration

func (e timeoutError) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(e)) }

// protocolError says that the connection is lost, or that the server or the library broke the protocol.
type protocolError string

func (e protocolError) Error() string { return string(e) }

// tooMuch reports whether the server, or the library, refused a request for its size.
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
	var code statusError
	if errors.As(err, &code) {
		switch ua.StatusCode(code) {
		case ua.StatusBadEncodingError, ua.StatusBadDecodingError, ua.StatusBadInternalError, ua.StatusBadUnexpectedError:
			return true
		}
		return tooMuch(err)
	}
	var (
		network  net.Error
		late     timeoutError
		protocol protocolError
	)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &network), errors.As(err, &late), errors.As(err, &protocol):
		return false
	}
	return true // the library could not decode the response, and says so in a plain error
}
