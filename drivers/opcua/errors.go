package opcua

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
)

// statusError is a request that the server refused as a whole.
type statusError ua.StatusCode

func (e statusError) Error() string { return statusText(ua.StatusCode(e)) }

// The errors of the channel, which the driver makes itself, too.
type (
	timeoutError   = wire.TimeoutError
	protocolError  = wire.ProtocolError
	malformedError = wire.MalformedError
)

// closedError says that the server or something on the way ended the connection: see drivers.ErrClosed.
type closedError string

func (e closedError) Error() string { return string(e) }

// Is makes errors.Is find drivers.ErrClosed.
func (e closedError) Is(target error) bool { return target == drivers.ErrClosed }

// unopenedError says why the server refuses to open a secure channel.
type unopenedError struct{ code ua.StatusCode }

func (e unopenedError) Error() string { return statusText(e.code) }

// judged says an error of the channel in the driver's words. broken says that the channel is of no use any more: then no error may
// pass for one of a single request.
func judged(err error, broken bool, timeout time.Duration) error {
	var network *net.OpError
	var status wire.StatusError
	var renewal *wire.RenewalError
	switch {
	case errors.As(err, &renewal):
		return fmt.Errorf("renew the secure channel: %w", judged(renewal.Err, true, timeout))
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &network):
		return lost(network, timeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return closedError("the server closed the connection")
	case errors.As(err, &status) && broken:
		return protocolError(statusText(ua.StatusCode(status)))
	case errors.As(err, &status):
		return statusError(status)
	case broken && splittable(err):
		return protocolError(err.Error())
	}
	return err
}

// lost says that the connection is lost. The network's own words hold the local port, which differs each time.
func lost(err *net.OpError, timeout time.Duration) error {
	switch {
	case err.Timeout():
		return timeoutError(timeout)
	case drivers.IsClosed(err):
		return closedError("the connection is lost: " + err.Err.Error())
	}
	return protocolError("the connection is lost: " + err.Err.Error())
}

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
