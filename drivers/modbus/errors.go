package modbus

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"millrace/drivers"
	"millrace/drivers/peer"
)

// errNotConnected is what a request gets before Connect and after Close.
var errNotConnected = errors.New("not connected")

// exception is an answer that refuses a request: a code of the Modbus Application Protocol V1.1b3, 7, or a vendor's.
type exception byte

// The exceptions that are told apart.
const (
	illegalFunction   exception = 1
	acknowledge       exception = 5
	busy              exception = 6
	pathUnavailable   exception = 10
	targetUnreachable exception = 11
)

var exceptionNames = map[exception]string{
	1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "device failure", 5: "acknowledge",
	6: "device busy", 8: "memory parity error", 10: "gateway path unavailable", 11: "gateway target device failed to respond",
}

// Error returns the code and its name.
func (e exception) Error() string {
	if name := exceptionNames[e]; name != "" {
		return fmt.Sprintf("exception %d: %s", byte(e), name)
	}
	return fmt.Sprintf("exception %d", byte(e))
}

// passing reports whether the device asks for patience: the same request may well be answered a moment later.
func (e exception) passing() bool { return e == acknowledge || e == busy }

// gateway reports whether something before the unit speaks for it.
func (e exception) gateway() bool { return e == pathUnavailable || e == targetUnreachable }

// lossKind is why there was no answer.
type lossKind uint8

const (
	lossSilent  lossKind = iota // nothing came in time
	lossInvalid                 // what came is not the answer, nor one of another unit
	lossPart                    // its begin came in time, and not the rest
	lossUnit                    // it came from another unit id
	lossClosed                  // the connection ended
	lossCrowd                   // another master is on the line, and something else came besides it
	lossFlood                   // the peer sends without end what nobody asked for
)

// crowdWords is why an answer is not believed.
const crowdWords = "another master speaks on this line, and its answers cannot be told from the device's"

// lateWords is what is added where an answer was given up too soon.
const lateWords = "; answers come later than that: raise timeout"

// loss is a request without an answer.
type loss struct {
	kind    lossKind
	begun   bool   // in the midst of an answer
	idle    bool   // seen before the request was sent
	fence   bool   // of a fence, after which the request was not made
	unit    int    // lossUnit: whose answer it was, and
	often   bool   // it is always that one's
	have    int    // lossPart: how many bytes came
	whole   int    // of so many
	instead string // what came instead, for people
	cause   error
}

// Error returns the reason without what changes from one attempt to the next; words adds what the request was.
func (l *loss) Error() string { return l.words(0) }

// words says why there was no answer within the time that there was. They are the same each time: no port numbers.
func (l *loss) words(timeout time.Duration) string {
	switch l.kind {
	case lossSilent:
		return fmt.Sprintf("no answer within %v%s", timeout, l.instead)
	case lossInvalid:
		if l.instead != "" { // valid, but to what was asked before
			return fmt.Sprintf("no answer within %v%s", timeout, l.instead)
		}
		return "the answer is not valid Modbus"
	case lossPart:
		came := ""
		if l.whole > 0 {
			came = fmt.Sprintf(": %d of %d bytes", l.have, l.whole)
		}
		return fmt.Sprintf("the answer was incomplete after %v%s; raise timeout, if the device is slow", timeout, came)
	case lossUnit:
		if !l.often { // the number may be damaged
			return "the answer came from another unit id"
		}
		return fmt.Sprintf("the answer came from another unit id, %d; accept_unit: %d takes it, if that is right", l.unit, l.unit)
	case lossCrowd:
		return crowdWords
	case lossFlood:
		return "the device sends without end what nobody asked for"
	}
	if _, explained := errors.AsType[*peer.HandshakeError](l.cause); explained {
		return plain(l.cause)
	}
	if l.cause == nil || drivers.IsClosed(l.cause) || errors.Is(l.cause, net.ErrClosed) { // a newer call replaced this one
		return "the device closed the connection"
	}
	return plain(l.cause)
}

// Unwrap returns what says to drivers.IsClosed that the peer ended the connection.
func (l *loss) Unwrap() error {
	if l.kind == lossClosed && (l.cause == nil || errors.Is(l.cause, io.EOF)) {
		return drivers.ErrClosed
	}
	return l.cause
}

// damaged reports whether something came, but not the answer: that is no refusal, since the register may well be there.
func (l *loss) damaged() bool {
	return l.kind != lossSilent && l.kind != lossClosed || l.begun || l.instead != ""
}

// spoilt reports whether the connection is of no more use: closed, or nobody knows where the next frame begins.
func (l *loss) spoilt() bool {
	return l.kind == lossClosed || l.kind == lossFlood || l.kind == lossInvalid || l.begun
}

// plain returns an error of the network without addresses.
func plain(err error) string {
	if e, ok := errors.AsType[*peer.HandshakeError](err); ok {
		return e.Error()
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// asLoss returns the loss that an error is, nil for none.
func asLoss(err error) *loss {
	l, _ := err.(*loss)
	return l
}
