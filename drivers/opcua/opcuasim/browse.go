package opcuasim

import (
	"fmt"
	"slices"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// browse answers a Browse request for one node: every variable lies in Objects, and nothing below a variable.
func (s *Server) browse(r *ua.BrowseRequest) (ua.Response, ua.StatusCode) {
	if len(r.NodesToBrowse) != 1 {
		return nil, ua.StatusBadTooManyOperations
	}
	if b := r.NodesToBrowse[0]; b.BrowseDirection == ua.BrowseDirectionInverse {
		return &ua.BrowseResponse{Results: []*ua.BrowseResult{browseType(b)}}, ua.StatusOK
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	result := &ua.BrowseResult{StatusCode: ua.StatusBadNodeIDUnknown}
	objects := ua.NewNumericNodeID(0, id.ObjectsFolder).String()
	asked := r.NodesToBrowse[0].NodeID.String()
	if p := s.root.find(s, asked); p != nil {
		result.StatusCode, result.References = ua.StatusOK, p.references(s)
	}
	for n := range s.nodes {
		if s.placed[n] {
			continue
		}
		at, err := ua.ParseNodeID(fmt.Sprintf("ns=%d;%s", slices.Index(s.namespaces, n.uri), n.identifier))
		if err != nil {
			continue
		}
		if at.String() == asked {
			result.StatusCode = ua.StatusOK
		}
		if asked == objects {
			result.StatusCode = ua.StatusOK
			result.References = append(result.References, &ua.ReferenceDescription{
				ReferenceTypeID: ua.NewNumericNodeID(0, id.Organizes), IsForward: true, NodeID: ua.NewExpandedNodeID(at, "", 0),
				BrowseName: &ua.QualifiedName{Name: n.identifier}, DisplayName: &ua.LocalizedText{}, NodeClass: ua.NodeClassVariable,
				TypeDefinition: ua.NewExpandedNodeID(ua.NewTwoByteNodeID(0), "", 0),
			})
		}
	}
	s.browseMethods(asked == objects, asked, result)
	return &ua.BrowseResponse{Results: []*ua.BrowseResult{result}}, ua.StatusOK
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
