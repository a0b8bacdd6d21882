package opcua

import (
	"strings"
	"testing"

	"millrace/drivers/opcua/opcuasim"
)

// TestSlowLogin: a server that needs longer than the timeout to log us in is waited for, so that no session of ours is left behind at each attempt. One that is
// slower still is given up, with what to do.
func TestSlowLogin(t *testing.T) {
	t.Parallel()
	s := start(t, opcuasim.Options{}, 1)
	s.SetSlowLogin(2 * brief)
	d := connect(t, polled(connection(s.Endpoint(), brief, variables(1)...)))
	wantNumbers(t, read(t, d), nil)
	if n := s.Sessions(); n != 1 {
		t.Errorf("%d sessions", n)
	}
	d.Close()
	s.SetSlowLogin(2 * loginPatience * brief)
	err := d.Connect(t.Context())
	if err == nil || !strings.Contains(err.Error(), "create session: no answer within 10s; raise the device's timeout") {
		t.Error(err)
	}
}
