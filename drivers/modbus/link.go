package modbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"time"

	"github.com/simonvetter/modbus"
)

// link is the connection: the library's client, which is made anew for each, because Open on an open
// client leaks its socket and a call before Open panics.
type link struct {
	host    string
	timeout time.Duration
	client  *modbus.ModbusClient // nil = closed
	unit    int                  // the unit id that the client is set to
	dialing chan struct{}        // holds one token while a dial runs
}

// errNotConnected is what a request gets before open and after close.
var errNotConnected = errors.New("not connected")

func newLink(host string, timeout time.Duration) link {
	return link{host: host, timeout: timeout, dialing: make(chan struct{}, 1)}
}

// open dials anew. The library dials for up to 5 s and cannot be interrupted: when ctx ends before, the
// dial is left to itself, closes what it gets, and is gone after these 5 s. There is never more than one.
func (l *link) open(ctx context.Context) error {
	l.close()
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := modbus.NewClient(&modbus.ClientConfiguration{
		URL: "tcp://" + l.host, Timeout: l.timeout,
		Logger: log.New(io.Discard, "", 0), // else it writes to stdout
	})
	if err != nil {
		return fmt.Errorf("prepare connection to %q: %w", l.host, err)
	}
	select {
	case l.dialing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan error)
	go func() {
		err := c.Open()
		<-l.dialing
		select {
		case done <- err:
		case <-ctx.Done():
			if err == nil {
				c.Close()
			}
		}
	}()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
		l.client, l.unit = c, -1
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reopen replaces the connection after an answer that did not come or was not right: whatever still
// comes on the old one finds nobody. It takes no longer than a request may, but a second at least: the
// first repetition of a lost packet comes after one.
func (l *link) reopen(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(l.timeout, time.Second))
	defer cancel()
	return l.open(ctx)
}

func (l *link) close() error {
	if l.client == nil {
		return nil
	}
	err := l.client.Close()
	l.client = nil
	return err
}

// use sets the unit id of the next request.
func (l *link) use(unit uint8) error {
	if l.client == nil {
		return errNotConnected
	}
	if l.unit == int(unit) {
		return nil
	}
	l.unit = int(unit)
	return l.client.SetUnitId(unit)
}

// registers reads count registers; the answer is 2*count bytes as on the wire.
func (l *link) registers(unit uint8, t table, first, count uint32) ([]byte, error) {
	if err := l.use(unit); err != nil {
		return nil, err
	}
	kind := modbus.HOLDING_REGISTER
	if t == input {
		kind = modbus.INPUT_REGISTER
	}
	data, err := l.client.ReadRawBytes(uint16(first), uint16(2*count), kind)
	if err == nil && len(data) != int(2*count) {
		return nil, modbus.ErrProtocolError
	}
	return data, err
}

// bits reads count coils or discrete inputs.
func (l *link) bits(unit uint8, t table, first, count uint32) ([]bool, error) {
	if err := l.use(unit); err != nil {
		return nil, err
	}
	read := l.client.ReadCoils
	if t == discrete {
		read = l.client.ReadDiscreteInputs
	}
	data, err := read(uint16(first), uint16(count))
	if err == nil && len(data) != int(count) {
		return nil, modbus.ErrProtocolError
	}
	return data, err
}

// The exceptions of the Modbus Application Protocol V1.1b3, 7, that need to be told apart.
const (
	illegalFunction   = 1
	acknowledge       = 5
	busy              = 6
	pathUnavailable   = 10
	targetUnreachable = 11
)

// exception returns the code and the words of an exception answer, no words for any other error.
func exception(err error) (code int, words string) {
	switch err {
	case modbus.ErrIllegalFunction:
		return illegalFunction, "exception 1: illegal function"
	case modbus.ErrIllegalDataAddress:
		return 2, "exception 2: illegal data address"
	case modbus.ErrIllegalDataValue:
		return 3, "exception 3: illegal data value"
	case modbus.ErrServerDeviceFailure:
		return 4, "exception 4: device failure"
	case modbus.ErrAcknowledge:
		return acknowledge, "exception 5: acknowledge"
	case modbus.ErrServerDeviceBusy:
		return busy, "exception 6: device busy"
	case modbus.ErrMemoryParityError:
		return 8, "exception 8: memory parity error"
	case modbus.ErrGWPathUnavailable:
		return pathUnavailable, "exception 10: gateway path unavailable"
	case modbus.ErrGWTargetFailedToRespond:
		return targetUnreachable, "exception 11: gateway target device failed to respond"
	}
	// The library has no constant for the others, only words.
	if rest, ok := strings.CutPrefix(err.Error(), "unknown exception code ("); ok {
		if _, err := fmt.Sscanf(rest, "%d)", &code); err == nil {
			return code, fmt.Sprintf("exception %d", code)
		}
	}
	return 0, ""
}

// loss says in words why there was no right answer. The words are the same each time: no port numbers.
func (l *link) loss(err error) string {
	switch {
	case errors.Is(err, modbus.ErrRequestTimedOut):
		return fmt.Sprintf("no answer within %v", l.timeout)
	case errors.Is(err, modbus.ErrProtocolError):
		return "the answer is not valid Modbus"
	case errors.Is(err, modbus.ErrBadUnitId):
		return "the answer came from another unit id"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the device closed the connection"
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// cut reports whether the connection ended under the request: many devices close one that was idle, so
// that a second try on a new one is worth it. A timeout or a wrong answer is not tried again.
func cut(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	op := (*net.OpError)(nil)
	return errors.As(err, &op) && !op.Timeout()
}
