package opcuasim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// place is a node in the tree of browse names.
type place struct {
	uri, name string // its browse name
	at        node
	below     []*place
	sources   []*place // whose events it tells, too
}

func newRoot() *place {
	numeric := func(n uint32) node { return node{uaURI, fmt.Sprintf("i=%d", n)} }
	return &place{at: numeric(id.RootFolder), below: []*place{
		{uaURI, "Objects", numeric(id.ObjectsFolder), nil, nil}, {uaURI, "Types", numeric(id.TypesFolder), nil, nil}, {uaURI, "Views", numeric(id.ViewsFolder), nil, nil}}}
}

// AddPath adds a variable by its browse path, such as "/Objects/2:Machine/2:Speed", and what is missing of the folders above. Its node id is
// "s=Machine.Speed" in the namespace of its last element. Indexes are those of the moment. Two may have the same path: give the second another at.
func (s *Server) AddPath(path, at string, value func() any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.root
	var names []string
	elements := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, e := range elements {
		ns, name := 0, e
		if index, rest, ok := strings.Cut(e, ":"); ok {
			ns, _ = strconv.Atoi(index)
			name = rest
		}
		if i > 0 {
			names = append(names, name)
		}
		next := p.child(s.namespaces[ns], name)
		if next == nil || i == len(elements)-1 && at != "" {
			next = &place{s.namespaces[ns], name, node{s.namespaces[ns], "s=" + strings.Join(names, ".")}, nil, nil}
			if i == len(elements)-1 && at != "" {
				next.at.identifier = at
			}
			p.below = append(p.below, next)
		}
		p = next
	}
	s.nodes[p.at], s.placed[p.at] = value, true
}

// RemovePath takes a node, and all below it, out of the tree; its value stays.
func (s *Server) RemovePath(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.root
	elements := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, e := range elements {
		_, name, ok := strings.Cut(e, ":")
		if !ok {
			name = e
		}
		at := slices.IndexFunc(p.below, func(c *place) bool { return c.name == name })
		if at < 0 {
			return
		}
		if i == len(elements)-1 {
			p.below = slices.Delete(p.below, at, at+1)
			return
		}
		p = p.below[at]
	}
}

func (p *place) child(uri, name string) *place {
	for _, c := range p.below {
		if c.uri == uri && c.name == name {
			return c
		}
	}
	return nil
}

// find returns the place of a node id, nil when it has none. mu is held, as by all that follow.
func (p *place) find(s *Server, id string) *place {
	if n := s.nodeID(p.at); n != nil && n.String() == id {
		return p
	}
	for _, c := range p.below {
		if found := c.find(s, id); found != nil {
			return found
		}
	}
	return nil
}

// nodeID returns the node id that a node has now, nil when its namespace is gone.
func (s *Server) nodeID(n node) *ua.NodeID {
	parsed, err := ua.ParseNodeID(fmt.Sprintf("ns=%d;%s", slices.Index(s.namespaces, n.uri), n.identifier))
	if err != nil {
		return nil
	}
	return parsed
}

func (p *place) references(s *Server) (all []*ua.ReferenceDescription) {
	refer := func(c *place, kind uint32) {
		n := s.nodeID(c.at)
		if n == nil || s.placed[c.at] && s.nodes[c.at] == nil { // its namespace is gone, or it was removed
			return
		}
		class := ua.NodeClassObject
		if s.nodes[c.at] != nil {
			class = ua.NodeClassVariable
		}
		all = append(all, &ua.ReferenceDescription{
			ReferenceTypeID: ua.NewNumericNodeID(0, kind), IsForward: true, NodeID: ua.NewExpandedNodeID(n, "", 0),
			BrowseName:  &ua.QualifiedName{NamespaceIndex: uint16(slices.Index(s.namespaces, c.uri)), Name: c.name},
			DisplayName: &ua.LocalizedText{}, NodeClass: class, TypeDefinition: ua.NewExpandedNodeID(ua.NewTwoByteNodeID(0), "", 0),
		})
	}
	for _, c := range p.below {
		refer(c, p.referenceTo(c, s.nodes[p.at] != nil))
	}
	for _, c := range p.sources {
		refer(c, id.HasEventSource)
	}
	return all
}

// translate answers where browse paths lead.
func (s *Server) translate(r *ua.TranslateBrowsePathsToNodeIDsRequest) (ua.Response, ua.StatusCode) {
	if n := s.opts.MaxPathsPerCall; n > 0 && len(r.BrowsePaths) > n {
		return nil, ua.StatusBadTooManyOperations
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	res := &ua.TranslateBrowsePathsToNodeIDsResponse{}
	for _, path := range r.BrowsePaths {
		result := &ua.BrowsePathResult{StatusCode: ua.StatusBadNoMatch}
		if start := s.root.find(s, path.StartingNode.String()); start != nil {
			for _, p := range s.follow([]*place{start}, path.RelativePath.Elements) {
				if n := s.nodeID(p.at); n != nil {
					result.StatusCode = ua.StatusOK
					result.Targets = append(result.Targets, &ua.BrowsePathTarget{TargetID: ua.NewExpandedNodeID(n, "", 0), RemainingPathIndex: 1<<32 - 1})
				}
			}
		}
		res.Results = append(res.Results, result)
	}
	return res, ua.StatusOK
}

func (s *Server) follow(from []*place, path []*ua.RelativePathElement) []*place {
	for _, e := range path {
		var next []*place
		for _, p := range from {
			for _, c := range p.below {
				if c.name == e.TargetName.Name && slices.Index(s.namespaces, c.uri) == int(e.TargetName.NamespaceIndex) {
					next = append(next, c)
				}
			}
		}
		from = next
	}
	return from
}
