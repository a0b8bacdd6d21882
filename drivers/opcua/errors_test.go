package opcua

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
)

func TestWhichErrorsMeanThatTheLinkIsDown(t *testing.T) {
	for _, c := range []struct {
		err              error
		split, tooMuchIs bool
	}{
		{statusError(ua.StatusBadTooManyOperations), true, true},
		{statusError(ua.StatusBadResponseTooLarge), true, true},
		{statusError(ua.StatusBadEncodingLimitsExceeded), true, true},
		{fmt.Errorf("wrapped: %w", statusError(ua.StatusBadRequestTooLarge)), true, true},
		{statusError(ua.StatusBadEncodingError), true, false},
		{statusError(ua.StatusBadInternalError), true, false},
		{malformedError("it ends early"), true, false},
		{fmt.Errorf("wrapped: %w", malformedError("it ends early")), true, false},
		{statusError(ua.StatusBadSessionIDInvalid), false, false},
		{statusError(ua.StatusBadSessionClosed), false, false},
		{statusError(ua.StatusBadSecureChannelIDInvalid), false, false},
		{statusError(ua.StatusBadTimeout), false, false},
		{statusError(ua.StatusBadServiceUnsupported), false, false},
		{statusError(ua.StatusBadServerHalted), false, false},
		{timeoutError(1), false, false},
		{protocolError("x"), false, false},
		{io.EOF, false, false},
		{io.ErrUnexpectedEOF, false, false},
		{errors.New("any other"), false, false},
		{context.Canceled, false, false},
		{context.DeadlineExceeded, false, false},
		{os.ErrDeadlineExceeded, false, false},
		{&net.OpError{Op: "write", Err: errors.New("broken pipe")}, false, false},
		{net.ErrClosed, false, false},
	} {
		if got := splittable(c.err); got != c.split {
			t.Errorf("%v: splittable %v", c.err, got)
		}
		if got := tooMuch(c.err); got != c.tooMuchIs {
			t.Errorf("%v: too much %v", c.err, got)
		}
	}
}

// TestPanicsStayHere reads a group that there is not.
func TestPanicsStayHere(t *testing.T) {
	d := poller(t, 1)
	r, err := d.Read(t.Context(), drivers.Ref{Device: 7}, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "BUG: the OPC UA driver panicked: ") || len(r) != 0 || splittable(err) {
		t.Errorf("got %d readings and %v", len(r), err)
	}
}
