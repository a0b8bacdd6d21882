package opcuasim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
)

// Step names an answer of a Hostile server: what it answers to.
type Step string

// The steps of a client's life, in order. The first Read of a connection asks for the server's limits;
// every later one is a poll.
const (
	StepHello    Step = "hello"
	StepOpen     Step = "open"
	StepOffers   Step = "endpoints"
	StepCreate   Step = "create"
	StepActivate Step = "activate"
	StepLimits   Step = "limits"
	StepPoll     Step = "poll"
)

// Steps returns all steps in order.
func Steps() []Step {
	return []Step{StepHello, StepOpen, StepOffers, StepCreate, StepActivate, StepLimits, StepPoll}
}

// Answer is the honest answer at one step, which a Trick may spoil.
type Answer struct {
	Kind     string // of the message: "ACK", "OPN" or "MSG"
	Sequence uint32 // sequence number of its first chunk
	Request  uint32 // id of the request that it answers
	Nodes    int    // nodes asked for, in a Read
	Asked    []byte // body of the request
	Body     []byte // from the type id on; of an ACK all after its header
}

// Trick is one thing that a server may do wrong. Play writes what it likes in place of the answer, a chunk
// a Write; the connection stays open if it returns true.
type Trick struct {
	Name string
	Step Step
	Slow bool // the client is left waiting: only its own timeout ends it
	Play func(w io.Writer, a Answer) bool
}

// Ids of the one channel that a Hostile server knows.
const (
	hostileChannel = 7
	hostileToken   = 9
)

// Hostile is a server that writes its bytes itself, without the library, so that any of them can be
// wrong. It is honest at every step but the trick's, and everywhere once it was told to Behave.
type Hostile struct {
	trick    Trick
	honest   atomic.Bool
	listener net.Listener
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]struct{} // nil when closed
}

// NewHostile listens on a free loopback port until Close.
func NewHostile(t Trick) (*Hostile, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the hostile server: %w", err)
	}
	h := &Hostile{trick: t, listener: l, conns: map[net.Conn]struct{}{}}
	h.wg.Add(1)
	go h.accept()
	return h, nil
}

// Endpoint returns the server's URL.
func (h *Hostile) Endpoint() string { return "opc.tcp://" + h.listener.Addr().String() }

// Behave makes the server honest from the next answer on.
func (h *Hostile) Behave() { h.honest.Store(true) }

// Close cuts all connections and waits for the server's goroutines.
func (h *Hostile) Close() {
	h.listener.Close()
	h.mu.Lock()
	for c := range h.conns {
		c.Close()
	}
	h.conns = nil
	h.mu.Unlock()
	h.wg.Wait()
}

func (h *Hostile) accept() {
	defer h.wg.Done()
	for {
		c, err := h.listener.Accept()
		if err != nil {
			return
		}
		h.mu.Lock()
		if h.conns == nil {
			h.mu.Unlock()
			c.Close()
			return
		}
		h.conns[c] = struct{}{}
		h.wg.Add(1)
		h.mu.Unlock()
		go h.serve(c)
	}
}

func (h *Hostile) serve(c net.Conn) {
	defer h.wg.Done()
	defer func() {
		c.Close()
		h.mu.Lock()
		delete(h.conns, c)
		h.mu.Unlock()
	}()
	sequence, limits := uint32(50), false
	for {
		request, err := receive(c)
		if err != nil {
			return
		}
		step, a, err := honest(request, &limits)
		if err != nil {
			return
		}
		w := counter{Writer: c}
		a.Sequence = sequence + 1
		if step != h.trick.Step || h.honest.Load() {
			w.Write(a.Bytes())
		} else if !h.trick.Play(&w, a) {
			return
		}
		sequence += w.chunks
	}
}

// counter counts the chunks that are written.
type counter struct {
	io.Writer
	chunks uint32
}

func (c *counter) Write(b []byte) (int, error) {
	c.chunks++
	return c.Writer.Write(b)
}

// receive reads one chunk of a client, which is trusted.
func receive(r io.Reader) ([]byte, error) {
	b := make([]byte, 8, 1024)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	size := int(binary.LittleEndian.Uint32(b[4:]))
	if size < 8 || size > 1<<17 {
		return nil, errors.New("a client's chunk of an odd size")
	}
	b = append(b, make([]byte, size-8)...)
	_, err := io.ReadFull(r, b[8:])
	return b, err
}

// honest returns the step that a request belongs to and its right answer. A request that is not known is
// an error; so is the end of the session, because nothing is left to spoil then.
func honest(request []byte, limits *bool) (step Step, a Answer, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("a client's chunk ends early")
		}
	}()
	switch string(request[:3]) {
	case "HEL":
		return StepHello, Answer{Kind: "ACK", Body: words(0, 65535, 65535, 0, 0)}, nil
	case "OPN":
		id := request[len("OPNF")+8+4+len(noPolicy)+8+4:]
		a = Answer{Kind: "OPN", Request: binary.LittleEndian.Uint32(id), Body: OpenBody(3600_000)}
		return StepOpen, a, nil
	case "MSG":
		a = Answer{Kind: "MSG", Request: binary.LittleEndian.Uint32(request[20:]), Asked: request[24:]}
		return answerService(a, limits)
	}
	return "", a, errors.New("a client's last words")
}

func answerService(a Answer, limits *bool) (Step, Answer, error) {
	body := a.Asked
	switch service := binary.LittleEndian.Uint16(body[2:]); service {
	case 428:
		a.Body = EndpointsBody()
		return StepOffers, a, nil
	case 461:
		a.Body = CreateSessionBody()
		return StepCreate, a, nil
	case 467:
		a.Body = join(ResponseHead(470, 0), null, null, null)
		return StepActivate, a, nil
	case 631:
		at := 4 + nodeSize(body[4:])
		at += 8 + 4 + 4 + 4 + 4 + 3 + 8 + 4 // the rest of the header; age and timestamps
		a.Nodes = int(binary.LittleEndian.Uint32(body[at:]))
		values := make([][]byte, a.Nodes)
		for i := range values {
			values[i] = Number(float64(i))
		}
		a.Body = ReadBody(values...)
		if !*limits {
			*limits = true
			return StepLimits, a, nil
		}
		return StepPoll, a, nil
	default:
		return "", a, fmt.Errorf("service %d is not known", service)
	}
}

// nodeSize returns the size of a client's encoded node id.
func nodeSize(b []byte) int {
	switch b[0] {
	case 0:
		return 2
	case 1:
		return 4
	case 2:
		return 7
	case 4:
		return 19
	}
	return 7 + int(binary.LittleEndian.Uint32(b[3:]))
}

// Bytes returns the answer as it should be sent: one final chunk.
func (a Answer) Bytes() []byte {
	if a.Kind == "ACK" {
		return Frame("ACKF", a.Body)
	}
	return a.Chunk('F', 0, a.Body)
}

// Chunk returns one chunk of the answer, the nth from 0, of a kind such as 'F' or 'C'.
func (a Answer) Chunk(kind byte, n int, body []byte) []byte {
	security := words(hostileChannel, hostileToken)
	if a.Kind == "OPN" {
		security = join(words(hostileChannel), text(noPolicy), null, null)
	}
	return Frame(a.Kind+string(kind), join(security, words(a.Sequence+uint32(n), a.Request), body))
}

// Frame returns a message of a type such as "ACKF" with its header.
func Frame(kind string, body []byte) []byte {
	return join([]byte(kind), words(uint32(8+len(body))), body)
}

const noPolicy = "http://opcfoundation.org/UA/SecurityPolicy#None"

var null = []byte{0xff, 0xff, 0xff, 0xff} // a string or array that is not there

// ResponseHead returns a service's type id and the header of its response.
func ResponseHead(service uint16, result uint32) []byte {
	return join([]byte{1, 0, byte(service), byte(service >> 8)}, make([]byte, 8), words(0, result), []byte{0}, null, []byte{0, 0, 0})
}

// OpenBody returns the body of an OpenSecureChannel response with the token's lifetime in milliseconds.
func OpenBody(lifetime uint32) []byte {
	return join(ResponseHead(449, 0), words(0, hostileChannel, hostileToken), make([]byte, 8), words(lifetime), null)
}

// endpoint is an EndpointDescription without security for anonymous users.
func endpoint() []byte {
	return join(text("opc.tcp://host"), text("urn:x"), text("urn:x"), []byte{2}, text("x"), words(0), null, null, null,
		null, words(1), text(noPolicy), words(1), text("anyone"), words(0), null, null, null,
		text("http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"), []byte{0})
}

// EndpointsBody returns the body of a GetEndpoints response with one endpoint for anonymous users.
func EndpointsBody() []byte { return join(ResponseHead(431, 0), words(1), endpoint()) }

// CreateSessionBody returns the body of a CreateSession response with one endpoint for anonymous users.
func CreateSessionBody() []byte {
	token := join([]byte{5, 1, 0}, text("0123456789abcdef"))
	timeout := binary.LittleEndian.AppendUint64(nil, math.Float64bits(60_000))
	return join(ResponseHead(464, 0), []byte{0, 5}, token, timeout, text("nonce"), null, words(1), endpoint(), null, null, null, words(0))
}

// ReadBody returns the body of a Read response with the encoded DataValues.
func ReadBody(values ...[]byte) []byte {
	return join(ResponseHead(634, 0), words(uint32(len(values))), join(values...), null)
}

// Number returns the DataValue of a Double.
func Number(v float64) []byte {
	return binary.LittleEndian.AppendUint64([]byte{1, 11}, math.Float64bits(v))
}

func words(v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func text(s string) []byte { return join(words(uint32(len(s))), []byte(s)) }

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}
