// Package opcuasim is a simulated OPC UA server for tests, the demo, integrators and benchmarks. It owns a small
// address space of variables whose values are functions, and breaks on demand: see Server and Proxy.
//
// It speaks over the library's secure channel, but answers the services itself, so that each fault can be made. It promises that every value it served was reported to
// Options.Served first. Hostile is another server, which writes its bytes itself, to play Tricks with
// them. Tests, millrace demo, millrace opcua simulate and millrace-bench call it; the gateway never does.
package opcuasim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uacp"
	"github.com/gopcua/opcua/uasc"
)

// Options says what a Server is like. The zero value is a healthy server on a free loopback port.
type Options struct {
	// Listen is the address to listen on, default "127.0.0.1:0". A restart uses the same port again.
	Listen string

	// Namespaces are the URIs of the namespaces from index 2 on, default "urn:millrace:machine".
	// Index 0 is OPC UA's own and index 1 the server's.
	Namespaces []string

	// MaxNodesPerRead is the limit that the server states and enforces with BadTooManyOperations;
	// 0 for none. HideLimit enforces without stating.
	MaxNodesPerRead int
	HideLimit       bool

	// MaxItemsPerCall is the like limit of items that one request may create, MaxPathsPerCall of browse paths.
	MaxItemsPerCall, MaxPathsPerCall int

	// NoSubscriptions makes the server one that has none. MinPublishing is the shortest publishing and sampling interval
	// that it has, MaxQueue the longest queue of an item, MaxPublish how many Publish requests may wait; 0 for none.
	NoSubscriptions      bool
	MinPublishing        time.Duration
	MaxQueue, MaxPublish int

	// MaxSubscriptions is how many a session may have, 0 = no limit.
	MaxSubscriptions int
	// OneID gives each subscription of a session the id of the first.
	OneID bool
	// MaxItems is how many items a subscription may have, 0 = no limit.
	MaxItems int
	// OneClient ends what a session was subscribed to when another begins: of a closed connection a server may learn late, and what it samples then is for nobody.
	OneClient bool
	// RefuseDeadband, when set, is the status with which an item with a deadband is refused.
	RefuseDeadband uint32
	// RefuseRefresh, when set, is the status with which a ConditionRefresh is refused.
	RefuseRefresh   uint32
	UnmarkedRefresh bool // conditions that are told again are marked among the events of the server itself only, as node-opcua does
	// OnRefresh, when set, is called before a ConditionRefresh is answered.
	OnRefresh func()

	// HistoryPage is the most values of a node's history in one answer, 0 for as many as are asked for.
	HistoryPage int
	// HistoryCut is the like number, but that there are more is not said. HistoryPlaces is how many places in histories the server keeps, 0 for as many as are asked for.
	HistoryCut, HistoryPlaces int
	// SpoilHistory may change what is answered of the past of a node.
	SpoilHistory func(node string, r *ua.HistoryReadResult)

	// Ahead is how far the server's clock is ahead of ours.
	Ahead time.Duration

	// Browsable makes the server one that answers Browse.
	Browsable bool
	// OnBrowse, when set, is called before a Browse request is answered.
	OnBrowse func()
	// MaxNodesPerBrowse is how many nodes one such request may name, 0 = no limit.
	MaxNodesPerBrowse int

	// Attribute, when set, says what an attribute other than the value is of a node such as "ns=2;i=3001"; nil = it has none. Refers names the
	// nodes that a node refers to by a type of reference of namespace 0; nil = none.
	Attribute func(node string, attribute ua.AttributeID) any
	Refers    func(node string, reference uint32, inverse bool) []Reference

	// ReceiveChunk is the largest chunk that the server takes, at least 8192 bytes, default 65535.
	// It sends chunks of up to 65535 all the same.
	ReceiveChunk int

	// Username and Password, when set, are the one login that the server takes, else it takes anybody. The password is
	// encrypted, or in clear text when ClearPassword is set.
	Username, Password string
	ClearPassword      bool

	// UserCertificate, when set, is the certificate in DER of a user whom the server takes, too. WrongUser makes it refuse him.
	UserCertificate []byte
	WrongUser       bool

	// Identity, when set, is the server's key and certificate; else it makes its own when it needs one, which costs some 100 ms.
	Identity *Identity

	// Policies are the URIs of the security policies that it offers, each signed, and signed and encrypted. Without
	// NoneToo it then takes no unsecured session.
	Policies []string
	NoneToo  bool

	// Secretive, when set, is the status with which GetEndpoints and FindServers are refused on a channel without security.
	Secretive uint32

	// Offers, when set, changes the endpoints that are told to anybody who asks, as a man in the middle might. Those of a session
	// stay as they are.
	Offers func([]*ua.EndpointDescription) []*ua.EndpointDescription

	// Forge makes the server's proof that the certificate is its own wrong.
	Forge bool

	// Served is called for each good or uncertain value of a variable just before the response
	// that carries it is sent, with the variable's identifier such as "s=Spindle.Speed". Calls of
	// different connections may overlap.
	Served func(identifier string, value any)

	// OnRegister, when set, sees how many nodes each RegisterNodes request has first. A status other than 0 is the answer.
	OnRegister func(nodes int) ua.StatusCode

	// OnRead, when set, sees the identifiers of each Read request first. A status other than 0 is
	// the answer to the whole request.
	OnRead func(identifiers []string) (status uint32)
}

// Reference is a node that another refers to, and its browse name.
type Reference struct{ Node, Name string }

// Server is the simulated server. Its methods may be called at any time from any goroutine.
type Server struct {
	opts Options

	mu         sync.RWMutex
	namespaces []string
	nodes      map[node]func() any
	bad        map[node]ua.StatusCode
	handled    atomic.Uint64 // see Handled
	writable   map[node]*Writable
	methods    map[node]*Method
	past       map[node]past
	about      map[node]About
	types      map[node]*dataType
	encodings  map[node]node    // of structures, and these
	notifiers  map[node]bool    // that tell events
	standing   map[string]Event // conditions, by name
	muted      map[node]bool    // of which subscriptions say nothing
	root       *place
	placed     map[node]bool // those that have a place
	listener   *net.TCPListener
	addr       string // the bound address, kept over restarts
	conns      map[net.Conn]struct{}
	sessions   map[string]*session // by authentication token

	silent, wrongNonce  atomic.Bool
	slowLogin           atomic.Int64
	unpublished, forget atomic.Bool  // see SetUnpublished, SkipMessages
	skip                atomic.Int64 // messages with values
	spoil               atomic.Pointer[Notification]
	spoilt              atomic.Uint64
	serial              atomic.Uint32 // channels and sessions made
	reads, writes       atomic.Uint64 // requests seen
	logins              atomic.Uint64
	continuations       atomic.Int64 // of history
	refreshes           atomic.Int64
	wg                  sync.WaitGroup
}

// session is what the server keeps of one.
type session struct {
	active             bool
	orphan             bool // its connection is gone
	locales            []string
	nonce, certificate []byte // ours; the client's
	channel            *uasc.SecureChannel
	subs               subscriptions
	handles            []*ua.NodeID // nodes that are registered
}

// node names a variable independent of the index that its namespace has at the moment.
type node struct{ uri, identifier string }

// ServerURI is the namespace with index 1.
const ServerURI = "urn:millrace:opcuasim"

const uaURI = "http://opcfoundation.org/UA/"

// New returns a server that does not listen yet.
func New(o Options) (*Server, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if len(o.Namespaces) == 0 {
		o.Namespaces = []string{"urn:millrace:machine"}
	}
	s := &Server{
		opts: o, addr: o.Listen, nodes: map[node]func() any{}, bad: map[node]ua.StatusCode{}, muted: map[node]bool{},
		root: newRoot(), placed: map[node]bool{}, writable: map[node]*Writable{}, methods: map[node]*Method{},
		past: map[node]past{}, about: map[node]About{}, types: map[node]*dataType{}, encodings: map[node]node{}, notifiers: map[node]bool{}, standing: map[string]Event{},
		conns: map[net.Conn]struct{}{}, sessions: map[string]*session{},
	}
	if o.Identity == nil && (o.Username != "" || o.UserCertificate != nil || len(o.Policies) > 0) {
		var err error
		if s.opts.Identity, err = NewIdentity(2048, nil); err != nil {
			return nil, err
		}
	}
	s.SetNamespaces(o.Namespaces...)
	s.addStandardNodes()
	return s, nil
}

// SetNamespaces changes the namespaces from index 2 on. Variables keep their namespace, whatever
// its new index; those of a namespace left out are not found any more.
func (s *Server) SetNamespaces(uris ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.namespaces = append([]string{uaURI, ServerURI}, uris...)
}

// AddVariable adds a variable to the first namespace of Options.Namespaces, with the node id
// "s=<name>". See AddNode.
func (s *Server) AddVariable(name string, value func() any) {
	s.AddNode(s.opts.Namespaces[0], "s="+name, value)
}

// RemoveVariable takes out a variable of the first namespace. Items that watch it say so and are dead from then on.
func (s *Server) RemoveVariable(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nodes, node{s.opts.Namespaces[0], "s=" + name})
}

// AddNode adds a variable with an identifier such as "i=1001". value is called for each read, also
// by several connections at once; it returns a Go value that a variant can hold, an int (sent as
// Int64), nil (null), or a *ua.DataValue, which is sent as it is.
func (s *Server) AddNode(uri, identifier string, value func() any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[node{uri, identifier}] = value
}

// SetStatus makes reads of a variable of the first namespace answer with a bad status code;
// 0 ends that.
func (s *Server) SetStatus(name string, code uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := node{s.opts.Namespaces[0], "s=" + name}
	if s.bad[key] = ua.StatusCode(code); code == 0 {
		delete(s.bad, key)
	}
}

// SetSilent makes the server go on accepting and reading, but answer nothing.
func (s *Server) SetSilent(silent bool) { s.silent.Store(silent) }

// SetSlowLogin makes the server take so long to create a session, and to activate it.
func (s *Server) SetSlowLogin(d time.Duration) { s.slowLogin.Store(int64(d)) }

// SetWrongNonce makes the server tell another nonce than the one that it wants signed: on a secured channel no session is activated.
func (s *Server) SetWrongNonce(wrong bool) { s.wrongNonce.Store(wrong) }

// Reads returns how many Read requests the server has seen.
func (s *Server) Reads() uint64 { return s.reads.Load() }

// Refreshes returns how many times clients have asked for the standing conditions of a subscription.
func (s *Server) Refreshes() int { return int(s.refreshes.Load()) }

// Logins returns how many ActivateSession requests, which hold the password, the server has seen.
func (s *Server) Logins() uint64 { return s.logins.Load() }

// Sessions returns how many sessions are open; a server whose client says farewell has none left.
func (s *Server) Sessions() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.sessions)
}

// Locales returns the languages that the sessions ask for.
func (s *Server) Locales() (all []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, made := range s.sessions {
		all = append(all, made.locales...)
	}
	return all
}

// DropSessions forgets all sessions, as a server does that has timed them out.
func (s *Server) DropSessions() {
	s.mu.Lock()
	forgotten := s.forgetSessions()
	s.mu.Unlock()
	endAll(forgotten)
}

// forgetSessions returns the sessions that there were. Their subscriptions are to be ended without mu, which these take after their own lock.
func (s *Server) forgetSessions() []*session {
	all := slices.Collect(maps.Values(s.sessions))
	clear(s.sessions)
	return all
}

func endAll(sessions []*session) {
	for _, made := range sessions {
		made.subs.end()
	}
}

// now is the time by the server's clock.
func (s *Server) now() time.Time { return time.Now().Add(s.opts.Ahead) }

// Addr returns host:port, once started.
func (s *Server) Addr() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.addr
}

// Endpoint returns the server's URL, once started.
func (s *Server) Endpoint() string { return "opc.tcp://" + s.Addr() }

// Start listens and serves until Close. After Close it starts again on the same port.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return errors.New("start the simulated OPC UA server: it runs already")
	}
	l, err := net.Listen("tcp", s.addr)
	for try := 0; errors.Is(err, syscall.EADDRINUSE) && try < 20; try++ { // a process just forked has the listener of before until it runs its program
		time.Sleep(50 * time.Millisecond)
		l, err = net.Listen("tcp", s.addr)
	}
	if err != nil {
		return fmt.Errorf("start the simulated OPC UA server: %w", err)
	}
	s.listener, s.addr = l.(*net.TCPListener), l.Addr().String()
	s.wg.Add(1)
	go s.accept(s.listener)
	return nil
}

// Close stops listening, cuts all connections, forgets all sessions and waits for its goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
	for c := range s.conns {
		c.Close()
	}
	forgotten := s.forgetSessions()
	s.mu.Unlock()
	endAll(forgotten)
	s.wg.Wait()
}

// Restart closes and starts again on the same port, as a machine does that is switched off and on.
func (s *Server) Restart() error {
	s.Close()
	return s.Start()
}

func (s *Server) accept(l *net.TCPListener) {
	defer s.wg.Done()
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.listener != l {
			s.mu.Unlock()
			c.Close()
			return
		}
		s.conns[c] = struct{}{}
		s.wg.Add(1)
		s.mu.Unlock()
		go s.serve(c)
	}
}

func (s *Server) serve(tcp *net.TCPConn) {
	defer s.wg.Done()
	defer func() {
		tcp.Close()
		s.mu.Lock()
		delete(s.conns, tcp)
		s.mu.Unlock()
	}()
	conn, err := s.shakeHands(tcp)
	if err != nil {
		return
	}
	id := s.serial.Add(1)
	config := &uasc.Config{
		SecurityPolicyURI: ua.SecurityPolicyURINone,
		SecurityMode:      ua.MessageSecurityModeNone,
		Lifetime:          uint32(time.Hour / time.Millisecond),
		RequestTimeout:    time.Second,
	}
	if s.opts.Identity != nil {
		config.LocalKey, config.Certificate = s.opts.Identity.Key, s.opts.Identity.Certificate
	}
	opened, err := uasc.NewServerSecureChannel(s.Endpoint(), conn, config, make(chan error, 1), id, 1, 1<<31|id) // equal ids of channel and token confuse the library's clients
	if err != nil {
		return
	}
	channel := &secured{SecureChannel: opened, config: config, tcp: tcp}
	defer func() {
		s.orphan(opened)
		tcp.Close() // before Close, which would send
		channel.Close()
	}()
	ctx := context.Background()
	for {
		m := channel.receive(ctx)
		if m.Err != nil {
			return
		}
		if req := m.Request(); req != nil && !s.silent.Load() {
			res := s.answer(channel, m.RequestID, req)
			if res == nil {
				continue
			}
			if s.silent.Load() {
				continue
			}
			if channel.send(ctx, m.RequestID, res) != nil {
				return
			}
		}
	}
}

// shakeHands answers the client's Hello with limits that suit both sides.
func (s *Server) shakeHands(tcp *net.TCPConn) (*uacp.Conn, error) {
	ack := *uacp.DefaultServerACK
	if s.opts.ReceiveChunk > 0 {
		ack.ReceiveBufSize = uint32(s.opts.ReceiveChunk)
	}
	conn, err := uacp.NewConn(tcp, &ack)
	if err != nil {
		return nil, err
	}
	tcp.SetDeadline(time.Now().Add(10 * time.Second))
	defer tcp.SetDeadline(time.Time{})
	b, err := conn.Receive()
	if err != nil {
		return nil, err
	}
	var hello uacp.Hello
	if len(b) < 8 || string(b[:4]) != "HELF" {
		return nil, errors.New("no Hello")
	}
	if _, err := hello.Decode(b[8:]); err != nil {
		return nil, err
	}
	ack.ReceiveBufSize = max(min(ack.ReceiveBufSize, hello.SendBufSize), 8192)
	ack.SendBufSize = max(min(ack.SendBufSize, hello.ReceiveBufSize), 8192)
	return conn, conn.Send("ACKF", &ack)
}

// find returns the variable that a node id means now.
func (s *Server) find(id *ua.NodeID) (node, bool) {
	if int(id.Namespace()) >= len(s.namespaces) {
		return node{}, false
	}
	text := id.String()
	if id.Namespace() != 0 {
		_, text, _ = strings.Cut(text, ";")
	}
	return node{s.namespaces[id.Namespace()], text}, true
}

// Identifiers returns the identifiers of all variables of a namespace, sorted.
func (s *Server) Identifiers(uri string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ids []string
	for n := range maps.Keys(s.nodes) {
		if n.uri == uri {
			ids = append(ids, n.identifier)
		}
	}
	slices.Sort(ids)
	return ids
}
