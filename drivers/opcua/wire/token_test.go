package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// opens opens or renews a channel whose server tells its new token after a while.
func opens(t *testing.T, c *Channel, s *server, delay, life time.Duration) {
	t.Helper()
	s.delay = delay
	go s.open()
	if err := c.Open(t.Context(), time.Minute, life); err != nil {
		t.Fatal(err)
	}
}

// TestTokenCountsFromItsRequest has answers to Open that come late. The server may have made the token as soon as it was asked: it is renewed in time, however
// late the answer, but never again at once.
func TestTokenCountsFromItsRequest(t *testing.T) {
	const life = time.Second
	for _, at := range []struct{ delay, renew, end time.Duration }{
		{0, 750 * time.Millisecond, life},
		{300 * time.Millisecond, 750 * time.Millisecond, life},
		{500 * time.Millisecond, 750 * time.Millisecond, life},
		{3 * time.Second, 3250 * time.Millisecond, 3500 * time.Millisecond},
	} {
		t.Run(at.delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := pair(t, ModeSign)
				for range 2 { // the first one and one renewed
					asked := time.Now()
					opens(t, c, s, at.delay, life)
					if renew, end := c.Times(); renew.Sub(asked) != at.renew || end.Sub(asked) != at.end {
						t.Errorf("renewed after %v, ends after %v; want %v, %v", renew.Sub(asked), end.Sub(asked), at.renew, at.end)
					}
				}
			})
		})
	}
}

// TestLateAnswerOfExpiredToken is a server without keys for an answer, because the token has expired that it made at once and told late, as node-opcua
// under load: the renewal that it has not seen yet fails, and the error says why.
func TestLateAnswerOfExpiredToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = time.Second
		c, s := pair(t, ModeSign)
		made := time.Now()
		opens(t, c, s, 400*time.Millisecond, life)
		go func() {
			id, token := s.request()
			s.chunk() // the renewal
			time.Sleep(time.Until(made.Add(life*5/4 + time.Millisecond)))
			s.out[token] = nil
			s.answer(id, token)
		}()
		_, err := c.Do(t.Context(), NewCall(), 30*time.Second, func(b []byte, request uint32) ([]byte, error) { return append(b, 1, 2, 3), nil })
		if !errors.As(err, new(*RenewalError)) || !strings.Contains(err.Error(), "signature") || !strings.Contains(err.Error(), "came after the channel's token had expired") {
			t.Error(err)
		}
	})
}

// TestOldKeysOutlastTheLatestToken: the server's keys of a token hold for a quarter longer than it lives, counted from the latest time at which it can have
// been made, and void afterwards.
func TestOldKeysOutlastTheLatestToken(t *testing.T) {
	for _, late := range []time.Duration{-time.Millisecond, time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			const life, delay = 20 * time.Second, 8 * time.Second
			c, s := pair(t, ModeSignAndEncrypt)
			opens(t, c, s, delay, life)
			told := time.Now()
			taken := make(chan uint32, 1)
			go func() {
				id, _ := s.request()
				taken <- id
			}()
			call := start(t, c)
			id := <-taken
			renew, _ := c.Times()
			time.Sleep(time.Until(renew))
			opens(t, c, s, 0, life)
			time.Sleep(time.Until(told.Add(life*5/4 + late)))
			go s.answer(id, 1)
			if _, err := call.number(); (err == nil) != (late < 0) {
				t.Errorf("%v after its end: %v", late, err)
			}
		})
	}
}

// TestAnswersOfCrossedRenewals has two who renew at a time, while an answer is outstanding: the token is renewed once, the next time in turn, and each
// answer is opened with the keys of its own nonces.
func TestAnswersOfCrossedRenewals(t *testing.T) {
	for _, mode := range []Mode{ModeSign, ModeSignAndEncrypt} {
		c, s := pair(t, mode)
		opens(t, c, s, 0, time.Hour)
		var asked int
		for range 3 {
			c.mu.Lock()
			c.renew = time.Now().Add(-time.Second)
			c.mu.Unlock()
			served, renewed := make(chan uint32, 1), make(chan error, 2)
			go func() {
				id, token := s.request()
				s.open()
				s.answer(id, token)
				served <- s.token
			}()
			call := start(t, c)
			for range 2 {
				go func() { renewed <- c.Renew(t.Context(), 10*time.Second) }()
			}
			if err := errors.Join(<-renewed, <-renewed); err != nil {
				t.Fatal(err)
			}
			if _, err := call.number(); err != nil {
				t.Fatal(err)
			}
			if asked++; <-served != uint32(asked+1) {
				t.Errorf("%v: renewed more than once", mode)
			}
		}
	}
}

// TestRenewalAnswersAnother: an answer to Open that names a request of another kind, or one that nobody has sent, ends the connection; none of its keys are
// taken.
func TestRenewalAnswersAnother(t *testing.T) {
	for _, other := range []uint32{2, 77} { // 2 is the request that waits
		c, s := pair(t, ModeSign)
		opens(t, c, s, 0, time.Hour)
		go func() {
			s.request()
			s.chunk()
			s.token++
			s.conn.Write(s.renewal(other, s.security.Policy.Nonce()))
			io.Copy(io.Discard, s.conn)
		}()
		call := start(t, c)
		err := c.Open(t.Context(), 10*time.Second, time.Hour)
		if err == nil || !strings.Contains(err.Error(), "answered another request") {
			t.Errorf("%d: %v", other, err)
		}
		c.Close()
		if _, err := call.number(); err == nil {
			t.Error("a request outlasts its channel")
		}
		if c.reads[0].token != 1 || c.token != 1 {
			t.Errorf("%d: the keys of a spoilt renewal are taken", other)
		}
	}
}

// renewal is an answer to an OpenSecureChannel request, with the last token.
func (s *server) renewal(request uint32, nonce []byte) []byte {
	s.sent++
	out := s.security.asymmetricHead(binary.LittleEndian.AppendUint32([]byte("OPNF\x00\x00\x00\x00"), 5))
	head := len(out)
	out = binary.LittleEndian.AppendUint32(out, s.sent)
	out = binary.LittleEndian.AppendUint32(out, request)
	out = append(out, 1, 0, openResponse&0xff, openResponse>>8)
	out = append(out, make([]byte, 8+4+4+1+4+3)...)
	for _, v := range []uint32{0, 5, s.token, 0, 0, 3600_000} {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	out, err := s.security.sealOpen(AppendBytes(out, nonce), head)
	if err != nil {
		s.t.Error(err)
	}
	return out
}

// TestRenewOnLostChannel: what has ended a channel before its token was due is no failure of the renewal.
func TestRenewOnLostChannel(t *testing.T) {
	c, s := pair(t, ModeSign)
	opens(t, c, s, 0, time.Hour)
	c.Fail(io.EOF)
	c.mu.Lock()
	c.renew = time.Now().Add(-time.Second)
	c.mu.Unlock()
	if err := c.Renew(t.Context(), time.Minute); err != io.EOF {
		t.Error(err)
	}
}
