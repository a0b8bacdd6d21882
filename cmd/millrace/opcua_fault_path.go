package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"millrace/drivers/opcua/opcuasim"
)

// simulatedUA is a simulated server with its machine. Faults of the path need a proxy before it.
type simulatedUA struct {
	*opcuasim.Server
	machine  *opcuasim.Machine
	counters *opcuasim.Counters
	rate     float64         // of the counters
	listen   string          // where clients come
	path     *opcuasim.Proxy // nil = they come to the server itself

	mu       sync.Mutex
	poisoned map[string]bool // identifiers of variables
}

// start lets clients come.
func (s *simulatedUA) start(throughProxy bool) error {
	if err := s.Start(); err != nil || !throughProxy {
		return err
	}
	var err error
	s.path, err = opcuasim.NewProxyOn(s.listen, s.Addr())
	return err
}

// end is the end of both.
func (s *simulatedUA) end() {
	if s.path != nil {
		s.path.Close()
	}
	s.Close()
}

// url is where clients come.
func (s *simulatedUA) url() string {
	if s.path != nil {
		return s.path.Endpoint()
	}
	return s.Endpoint()
}

func (s *simulatedUA) off() (err error) {
	if s.path != nil {
		err = s.path.Refuse(true)
	}
	s.Close()
	return err
}

func (s *simulatedUA) on() error {
	err := s.Start()
	if s.path != nil {
		err = errors.Join(err, s.path.Refuse(false))
	}
	return err
}

// poison has Read requests refused that have a variable and others, or ends that.
func (s *simulatedUA) poison(identifier string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poisoned == nil {
		s.poisoned = map[string]bool{}
	}
	s.poisoned[identifier] = on
}

// onRead is opcuasim's Options.OnRead.
func (s *simulatedUA) onRead(identifiers []string) (status uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	const badEncodingError = 0x80060000
	if len(identifiers) > 1 && slices.ContainsFunc(identifiers, func(i string) bool { return s.poisoned[i] }) {
		return badEncodingError
	}
	return 0
}

// uaChunkGames are what may be wrong in a chunk (OPC 10000-6, 6.7.2): its message type, and where the byte stands that is.
var uaChunkGames = map[string]struct {
	kind string
	at   int
}{
	"message": {"MSG", 0}, "type": {"MSG", 3}, "size": {"MSG", 7}, "channel": {"MSG", 8}, "token": {"MSG", 12}, "sequence": {"MSG", 16}, "request": {"MSG", 20}, "body": {"MSG", 26}, "renewal": {"OPN", 60},
}

// onPath reports whether a fault is one of the path between client and server.
func onPath(fault string) bool {
	kind, _, _ := strings.Cut(fault, "@")
	kind, _, _ = strings.Cut(kind, ":")
	return slices.Contains([]string{"cut", "unreachable", "held", "expired-token", "chunk"}, kind)
}

// uaFaultOfPath is uaFaultOf for faults of the path; known says whether it is one.
func uaFaultOfPath(s *simulatedUA, kind, what string) (begin, end func() error, known bool, err error) {
	if !onPath(kind) {
		return nil, nil, false, nil
	}
	do := func(f func()) func() error { return func() error { f(); return nil } }
	if kind == "chunk" {
		game, ok := uaChunkGames[what]
		if !ok {
			return nil, nil, true, fmt.Errorf("%q is not known; use one of %s", what, strings.Join(slices.Sorted(maps.Keys(uaChunkGames)), ", "))
		}
		return do(func() { s.path.Garble(game.kind, game.at) }), nil, true, nil
	}
	switch {
	case what != "":
		err = fmt.Errorf("nothing stands after %s", kind)
	case kind == "cut":
		begin = do(func() { s.path.Cut() })
	case kind == "unreachable":
		begin, end = do(func() { s.path.Silence(true) }), do(func() { s.path.Silence(false) })
	case kind == "held":
		begin, end = do(func() { s.path.Hold(true) }), do(func() { s.path.Hold(false) })
	default:
		begin = do(func() { s.path.Garble("MSG", 12) })
	}
	return begin, end, true, err
}
