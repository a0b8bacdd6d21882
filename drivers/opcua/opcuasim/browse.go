package opcuasim

import (
	"fmt"
	"slices"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// browse answers a Browse request: every variable lies in Objects unless it has a place, and nothing below a variable.
func (s *Server) browse(r *ua.BrowseRequest) (ua.Response, ua.StatusCode) {
	if n := s.opts.MaxNodesPerBrowse; n > 0 && len(r.NodesToBrowse) > n {
		return nil, ua.StatusBadTooManyOperations
	}
	if s.opts.OnBrowse != nil {
		s.opts.OnBrowse()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	res := &ua.BrowseResponse{}
	for _, b := range r.NodesToBrowse {
		if b.BrowseDirection == ua.BrowseDirectionInverse {
			res.Results = append(res.Results, s.above(b))
		} else {
			res.Results = append(res.Results, s.below(b.NodeID.String()))
		}
	}
	return res, ua.StatusOK
}

// below lists what is right below a node. mu is held.
func (s *Server) below(asked string) *ua.BrowseResult {
	result := &ua.BrowseResult{StatusCode: ua.StatusBadNodeIDUnknown}
	objects := ua.NewNumericNodeID(0, id.ObjectsFolder).String()
	if p := s.root.find(s, asked); p != nil {
		result.StatusCode, result.References = ua.StatusOK, p.references(s)
	}
	for n := range s.nodes {
		at, err := ua.ParseNodeID(fmt.Sprintf("ns=%d;%s", slices.Index(s.namespaces, n.uri), n.identifier))
		if err != nil {
			continue
		}
		if at.String() == asked {
			result.StatusCode = ua.StatusOK
		}
		if asked == objects && !s.placed[n] {
			result.StatusCode = ua.StatusOK
			result.References = append(result.References, &ua.ReferenceDescription{
				ReferenceTypeID: ua.NewNumericNodeID(0, id.Organizes), IsForward: true, NodeID: ua.NewExpandedNodeID(at, "", 0),
				BrowseName: &ua.QualifiedName{Name: n.identifier}, DisplayName: &ua.LocalizedText{}, NodeClass: ua.NodeClassVariable,
				TypeDefinition: ua.NewExpandedNodeID(ua.NewTwoByteNodeID(0), "", 0),
			})
		}
	}
	s.browseMethods(asked == objects, asked, result)
	return result
}

// refers answers a Browse request by what Options.Refers says.
func (s *Server) refers(b *ua.BrowseDescription) ua.Response {
	result := &ua.BrowseResult{}
	for _, to := range s.opts.Refers(b.NodeID.String(), b.ReferenceTypeID.IntID(), b.BrowseDirection == ua.BrowseDirectionInverse) {
		at, err := ua.ParseNodeID(to.Node)
		if err != nil {
			continue
		}
		result.References = append(result.References, &ua.ReferenceDescription{
			ReferenceTypeID: b.ReferenceTypeID, NodeID: ua.NewExpandedNodeID(at, "", 0), BrowseName: &ua.QualifiedName{Name: to.Name},
			DisplayName: &ua.LocalizedText{}, TypeDefinition: ua.NewExpandedNodeID(ua.NewTwoByteNodeID(0), "", 0),
		})
	}
	return &ua.BrowseResponse{Results: []*ua.BrowseResult{result}}
}

// browseMethods lists the methods of Objects, or the arguments of one.
func (s *Server) browseMethods(all bool, asked string, result *ua.BrowseResult) {
	list := func(n node, name string, class ua.NodeClass) {
		at, err := ua.ParseNodeID(fmt.Sprintf("ns=%d;%s", slices.Index(s.namespaces, n.uri), n.identifier))
		if err != nil {
			return
		}
		result.StatusCode = ua.StatusOK
		result.References = append(result.References, &ua.ReferenceDescription{
			ReferenceTypeID: ua.NewNumericNodeID(0, id.HasComponent), IsForward: true, NodeID: ua.NewExpandedNodeID(at, "", 0),
			BrowseName: &ua.QualifiedName{Name: name}, DisplayName: &ua.LocalizedText{}, NodeClass: class,
			TypeDefinition: ua.NewExpandedNodeID(ua.NewTwoByteNodeID(0), "", 0),
		})
	}
	for n := range s.methods {
		if at := fmt.Sprintf("ns=%d;%s", slices.Index(s.namespaces, n.uri), n.identifier); at == asked {
			list(node{n.uri, n.identifier + ".InputArguments"}, "InputArguments", ua.NodeClassVariable)
			list(node{n.uri, n.identifier + ".OutputArguments"}, "OutputArguments", ua.NodeClassVariable)
		}
		if all {
			list(n, n.identifier[len("s="):], ua.NodeClassMethod)
		}
	}
}
