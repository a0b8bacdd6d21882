package wire

import (
	"encoding/binary"
	"testing"
	"time"
)

// TestTimeoutAmidAnswer: a request whose answer takes too long is over, and its Call the caller's again, though the rest of the answer still
// comes in. The race detector is the judge.
func TestTimeoutAmidAnswer(t *testing.T) {
	for range 3 {
		c, s := pair(t, ModeSign)
		go s.open()
		if err := c.Open(t.Context(), time.Minute, time.Hour); err != nil {
			t.Fatal(err)
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			request, token := s.request()
			for s.more(request, token) == nil {
			}
		}()
		call := NewCall()
		build := func(b []byte, request uint32) ([]byte, error) { return append(b, 1, 2, 3), nil }
		if _, err := c.Do(t.Context(), call, 5*time.Millisecond, build); err == nil {
			t.Error("an answer without an end was taken")
		}
		call.body = append(call.body, 1) // whoever has the Call may do as he likes
		call.Trim()
		if _, err := c.Do(t.Context(), call, time.Second, build); err == nil {
			t.Error("a failed channel takes requests")
		}
		c.Close()
		<-over
	}
}

// more sends a part of an answer that is not its last.
func (s *server) more(request, token uint32) error {
	s.sent++
	b := []byte("MSGC\x00\x00\x00\x00")
	for _, v := range []uint32{5, token, s.sent, request} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	_, err := s.conn.Write(s.out[token].seal(append(b, make([]byte, 2000)...)))
	return err
}

// TestAnswerInTheLastInstant: the time of a request that was answered is up for nobody, also when its timer had fired before the answer was taken.
func TestAnswerInTheLastInstant(t *testing.T) {
	c, s := pair(t, ModeSign)
	go s.open()
	opened := c.request + 1
	if err := c.Open(t.Context(), time.Minute, time.Hour); err != nil {
		t.Fatal(err)
	}
	go func() { s.answer(s.request()) }()
	call := start(t, c)
	<-call.done
	for _, request := range []uint32{opened, call.id} {
		if c.expire(request, TimeoutError(time.Second)); c.Err() != nil {
			t.Fatalf("request %d was answered: %v", request, c.Err())
		}
	}
	go s.request()
	call = start(t, c)
	c.expire(call.id, TimeoutError(time.Second))
	if <-call.done; c.Err() == nil || call.err != c.Err() {
		t.Errorf("not answered: the call %v, the channel %v", call.err, c.Err())
	}
}
