package web

import (
	"bytes"
	"errors"
	"testing"
)

// TestAskAndTraceThroughTheSocket: requests, answers and exchanges arrive byte for byte, and so do refusals.
func TestAskAndTraceThroughTheSocket(t *testing.T) {
	c := client(t, serve(t, newFake(t, 0)))
	request := []byte{0, 255, '&', '=', 10}
	asked, err := c.Ask(t.Context(), "modbus", "tcp://h:502", request)
	if err != nil || !asked.Line || !bytes.Equal(asked.Answer, append([]byte{7}, request...)) {
		t.Errorf("asked %+v, %v", asked, err)
	}
	if asked, err = c.Ask(t.Context(), "modbus", "tcp://other", nil); err != nil || asked.Line {
		t.Errorf("another line: %+v, %v", asked, err)
	}
	var got []Exchange
	if err = c.Trace(t.Context(), "press-1", func(e *Exchange) error { got = append(got, *e); return nil }); err != nil || len(got) != 3 || got[2].Answer[2] != 2 {
		t.Errorf("trace: %+v, %v", got, err)
	}
	enough := errors.New("enough")
	if err = c.Trace(t.Context(), "press-1", func(*Exchange) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("a trace that has seen enough: %v", err)
	}
	if err = c.Trace(t.Context(), "nobody", nil); err == nil || err.Error() != "no such device" {
		t.Errorf("no such device: %v", err)
	}
}
