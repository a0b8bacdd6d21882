package opcua

import (
	"errors"
	"strings"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// TestSlowLogin: a server that needs longer than the timeout to log us in is waited for, so that no session of ours is left behind at each attempt. One that is
// slower still is no timeout to the poller, which would try again within seconds.
func TestSlowLogin(t *testing.T) {
	const timeout = 500 * time.Millisecond
	s := start(t, opcuasim.Options{}, 1)
	s.SetSlowLogin(2 * timeout)
	d := connect(t, polled(connection(s.Endpoint(), timeout, variables(1)...)))
	wantNumbers(t, read(t, d), nil)
	if n := s.Sessions(); n != 1 {
		t.Errorf("%d sessions", n)
	}
	d.Close()
	s.SetSlowLogin(2 * loginPatience * timeout)
	err := d.Connect(t.Context())
	var again interface{ Timeout() bool }
	if err == nil || !strings.Contains(err.Error(), "create session: no answer within 2.5s; raise the device's timeout") || errors.As(err, &again) {
		t.Errorf("%v; a timeout: %v", err, again != nil)
	}
}
