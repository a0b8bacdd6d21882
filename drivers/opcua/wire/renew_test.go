package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// server is the other end of a channel, with answers in whatever order a test wants.
type server struct {
	t        *testing.T
	conn     net.Conn
	security Security
	sent     uint32
	token    uint32
	in, out  map[uint32]*keys // by token
	delay    time.Duration    // from a token to the answer that tells it
}

// pair returns a client's channel and its server, shaken hands.
func pair(t *testing.T, mode Mode) (*Channel, *server) {
	t.Helper()
	ourKey, our := side(t, 2048)
	theirKey, their := side(t, 2048)
	p := &policyAes256
	a, b := net.Pipe()
	c := New(a, Security{Policy: p, Mode: mode, Chain: our, Key: ourKey, Remote: their, RemoteKey: &theirKey.PublicKey}, func(uint32) string { return "" })
	s := &server{t: t, conn: b, security: Security{Policy: p, Mode: mode, Chain: their, Key: theirKey, Remote: our, RemoteKey: &ourKey.PublicKey},
		in: map[uint32]*keys{}, out: map[uint32]*keys{}}
	t.Cleanup(func() { c.Close(); b.Close() })
	go func() {
		s.chunk()
		b.Write([]byte("ACKF\x1c\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	}()
	if err := c.Hello("opc.tcp://x"); err != nil {
		t.Fatal(err)
	}
	return c, s
}

func (s *server) chunk() []byte {
	b := make([]byte, 8, ChunkSize)
	if _, err := io.ReadFull(s.conn, b); err != nil {
		return nil
	}
	b = b[:binary.LittleEndian.Uint32(b[4:])]
	if _, err := io.ReadFull(s.conn, b[8:]); err != nil {
		return nil
	}
	return b
}

// open takes an OpenSecureChannel request and answers it.
func (s *server) open() {
	b := s.chunk()
	if b == nil {
		return
	}
	body, err := s.security.openOpen(b)
	if err != nil {
		s.t.Error(err)
		return
	}
	r := Reader{B: body}
	r.U32()
	request := r.U32()
	r.NodeID() // service, then the header
	r.NodeID()
	r.U64()
	r.U32()
	r.U32()
	r.Bytes()
	r.U32()
	r.ExtensionObject()
	r.Take(12) // version, kind, mode
	client, nonce := r.Bytes(), s.security.Policy.Nonce()
	if r.Err != nil {
		s.t.Error(r.Err)
		return
	}
	s.token++
	s.in[s.token], s.out[s.token] = s.security.newKeys(nonce, client), s.security.newKeys(client, nonce)
	out := s.renewal(request, nonce)
	time.Sleep(s.delay)
	s.conn.Write(out)
}

// request takes a request and returns its id, and the token under which it came.
func (s *server) request() (id, token uint32) {
	b := s.chunk()
	if b == nil {
		return 0, 0
	}
	token = binary.LittleEndian.Uint32(b[12:])
	body, err := s.in[token].open(b)
	if err != nil {
		s.t.Error(err)
		return 0, token
	}
	return binary.LittleEndian.Uint32(body[4:]), token
}

// answer answers a request under a token.
func (s *server) answer(request, token uint32) { s.answerWith(request, token, token) }

// answerWith names one token and uses the keys of another.
func (s *server) answerWith(request, token, with uint32) {
	s.sent++
	b := []byte("MSGF\x00\x00\x00\x00")
	for _, v := range []uint32{5, token, s.sent, request, request} { // the body is the request's id
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	s.conn.Write(s.out[with].seal(b))
}

func start(t *testing.T, c *Channel) *Call {
	t.Helper()
	call := NewCall()
	if err := c.Start(call, time.Minute, func(b []byte, request uint32) ([]byte, error) { return append(b, 1, 2, 3), nil }); err != nil {
		t.Error(err)
	}
	return call
}

func (call *Call) number() (uint32, error) {
	<-call.done
	b, err := call.Take()
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

// TestRenewalUnderLoad renews the token while requests are open. Their answers come under the old token behind that to the renewal, in any
// order, and behind an answer under the new one, too; with the next renewal, or when it has expired, the old token's keys are void. Its name may
// still stand before what the present keys seal.
func TestRenewalUnderLoad(t *testing.T) {
	for i, mode := range []Mode{ModeSign, ModeSignAndEncrypt, ModeSign} {
		expires := i == 2
		c, s := pair(t, mode)
		go s.open()
		if err := c.Open(t.Context(), time.Minute, time.Hour); err != nil {
			t.Fatal(err)
		}
		var ids [6]uint32
		taken := make(chan struct{})
		go func() {
			defer close(taken)
			for i := range ids {
				ids[i], _ = s.request()
			}
			s.open()
		}()
		calls := [6]*Call{start(t, c), start(t, c), start(t, c), start(t, c), start(t, c), start(t, c)}
		if err := c.Open(t.Context(), time.Minute, time.Hour); err != nil {
			t.Fatal(err)
		}
		<-taken
		for _, step := range []struct{ call, token uint32 }{{2, 1}, {0, 1}} { // the old keys still hold
			go s.answer(ids[step.call], step.token)
			if got, err := calls[step.call].number(); err != nil || got != ids[step.call] {
				t.Fatalf("%v: answer to %d: %d, %v", mode, ids[step.call], got, err)
			}
		}
		fresh := make(chan uint32)
		go func() {
			id, token := s.request()
			s.answer(id, 2)
			fresh <- token
		}()
		if _, err := start(t, c).number(); err != nil {
			t.Fatal(err)
		}
		if token := <-fresh; token != 2 {
			t.Errorf("%v: a request after the renewal has the token %d", mode, token)
		}
		go s.answer(ids[3], 1) // the old keys still hold
		if got, err := calls[3].number(); err != nil || got != ids[3] {
			t.Fatalf("%v: an answer under the old token behind one under the new: %d, %v", mode, got, err)
		}
		go s.answerWith(ids[4], 1, 2)
		if got, err := calls[4].number(); err != nil || got != ids[4] {
			t.Fatalf("%v: an answer under the present keys and the old name: %d, %v", mode, got, err)
		}
		if expires {
			c.reads[1].until = time.Now()
		} else {
			go s.open()
			if err := c.Open(t.Context(), time.Minute, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		go s.answerWith(ids[5], 1, s.token)
		if got, err := calls[5].number(); err != nil || got != ids[5] {
			t.Fatalf("%v: an answer under the present keys and a void name: %d, %v", mode, got, err)
		}
		go s.answer(ids[1], 1) // too late
		var broken ProtocolError
		if _, err := calls[1].number(); !errors.As(err, &broken) || !strings.Contains(err.Error(), "another secure channel") {
			t.Errorf("%v: an answer under a void token: %v", mode, err)
		}
	}
}

// TestRenewalWhileWaiting has a server that takes its time with an answer: meanwhile it is asked to renew the token, again and again.
func TestRenewalWhileWaiting(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{ModeSign, ModeSignAndEncrypt} {
		c, s := pair(t, mode)
		go s.open()
		if err := c.Open(t.Context(), time.Minute, MinLifetime); err != nil {
			t.Fatal(err)
		}
		id := make(chan uint32, 1)
		go func() {
			n, _ := s.request()
			id <- n
			s.open()
			s.open()
			s.answerWith(n, 1, s.token)
		}()
		body, err := c.Do(t.Context(), NewCall(), 30*time.Second, func(b []byte, request uint32) ([]byte, error) { return append(b, 1, 2, 3), nil })
		if want := <-id; err != nil || binary.LittleEndian.Uint32(body) != want {
			t.Errorf("%v: %x, %v", mode, body, err)
		}
	}
}

// TestRefusedRenewalWhileWaiting: the request ends with the channel, and says why.
func TestRefusedRenewalWhileWaiting(t *testing.T) {
	t.Parallel()
	c, s := pair(t, ModeSign)
	go s.open()
	if err := c.Open(t.Context(), time.Minute, MinLifetime); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.request()
		s.chunk()
		s.conn.Write([]byte("ERRF\x10\x00\x00\x00\x00\x00\x87\x80\xff\xff\xff\xff"))
	}()
	_, err := c.Do(t.Context(), NewCall(), 30*time.Second, func(b []byte, request uint32) ([]byte, error) { return append(b, 1, 2, 3), nil })
	var ended *EndedError
	if !errors.As(err, new(*RenewalError)) || !errors.As(err, &ended) || ended.Status != 0x80870000 {
		t.Error(err)
	}
	if c.Err() == nil {
		t.Error("the channel is of use after that")
	}
}

// TestUnsecuredAnswer has a server that has no keys any more when the token has expired. Nothing of what it sends is taken, and the error says what
// it likely is.
func TestUnsecuredAnswer(t *testing.T) {
	for _, expired := range []bool{false, true} {
		c, s := pair(t, ModeSign)
		go s.open()
		if err := c.Open(t.Context(), time.Minute, time.Hour); err != nil {
			t.Fatal(err)
		}
		if expired {
			c.mu.Lock()
			c.end = time.Now()
			c.mu.Unlock()
		}
		go func() {
			id, token := s.request()
			s.out[token] = nil
			s.answer(id, token)
		}()
		_, err := start(t, c).number()
		if err == nil || !strings.Contains(err.Error(), "signature") || strings.Contains(err.Error(), "came after the channel's token had expired") != expired {
			t.Errorf("expired %t: %v", expired, err)
		}
	}
}
