package opcuasim

import (
	"github.com/gopcua/opcua/ua"
)

// firstHandle is the first of the node ids of namespace 0 that a session is given in place of others; no node has one.
const firstHandle = 1 << 31

// maxHandles bounds the nodes that a session may register.
const maxHandles = 100_000

// register gives a session handles of nodes (OPC 10000-4, 5.8.5), also of some that there are not.
func (s *Server) register(made *session, r *ua.RegisterNodesRequest) (ua.Response, ua.StatusCode) {
	if s.opts.OnRegister != nil {
		if status := s.opts.OnRegister(len(r.NodesToRegister)); status != 0 {
			return nil, status
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(r.NodesToRegister) == 0:
		return nil, ua.StatusBadNothingToDo
	case len(made.handles)+len(r.NodesToRegister) > maxHandles:
		return nil, ua.StatusBadTooManyOperations
	}
	res := &ua.RegisterNodesResponse{}
	for _, n := range r.NodesToRegister {
		res.RegisteredNodeIDs = append(res.RegisteredNodeIDs, ua.NewNumericNodeID(0, firstHandle+uint32(len(made.handles))))
		made.handles = append(made.handles, n)
	}
	return res, ua.StatusOK
}

// ForgetHandles makes the handles of all sessions unknown.
func (s *Server) ForgetHandles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, made := range s.sessions {
		made.handles = nil
	}
}

// unhandle puts the nodes in the place of their handles.
func (s *Server) unhandle(made *session, all []*ua.ReadValueID) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range all {
		if n := r.NodeID; n.Namespace() == 0 && n.IntID() >= firstHandle && int(n.IntID()-firstHandle) < len(made.handles) {
			r.NodeID = made.handles[n.IntID()-firstHandle]
			s.handled.Add(1)
		}
	}
}

// Handled returns how many nodes were read by a handle.
func (s *Server) Handled() uint64 { return s.handled.Load() }
