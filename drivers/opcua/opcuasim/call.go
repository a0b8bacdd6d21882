package opcuasim

import (
	"fmt"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// Method is a method of the Objects folder, which anybody may call who may read.
type Method struct {
	Inputs, Outputs []Argument
	Namespace       int // index of its own among Options.Namespaces
	Call            func(args []any) (results []any, status uint32)
}

// Argument is one of a method's. Type is a data type of namespace 0, Rank -1 for one value and 1 for an array.
type Argument struct {
	Name string
	Type uint32
	Rank int32
}

// AddMethod adds a method to its namespace, with the node id "s=<name>"; its arguments are described by the nodes
// "s=<name>.InputArguments" and "s=<name>.OutputArguments".
func (s *Server) AddMethod(name string, m Method) {
	described := func(all []Argument) func() any {
		objects := make([]*ua.ExtensionObject, len(all))
		for i, a := range all {
			objects[i] = ua.NewExtensionObject(&ua.Argument{Name: a.Name, DataType: ua.NewNumericNodeID(0, a.Type), ValueRank: a.Rank, ArrayDimensions: []uint32{}, Description: &ua.LocalizedText{}})
		}
		return func() any { return objects }
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	uri := s.opts.Namespaces[m.Namespace]
	s.methods[node{uri, "s=" + name}] = &m
	for property, all := range map[string][]Argument{".InputArguments": m.Inputs, ".OutputArguments": m.Outputs} {
		at := node{uri, "s=" + name + property}
		s.nodes[at], s.placed[at] = described(all), true // below the method: see browseMethods
	}
}

func (s *Server) call(made *session, r *ua.CallRequest) (ua.Response, ua.StatusCode) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	res := &ua.CallResponse{Results: make([]*ua.CallMethodResult, len(r.MethodsToCall))}
	for i, m := range r.MethodsToCall {
		res.Results[i] = s.callOne(made, m)
	}
	return res, ua.StatusOK
}

func (s *Server) callOne(made *session, r *ua.CallMethodRequest) *ua.CallMethodResult {
	key, _ := s.find(r.MethodID)
	m := s.methods[key]
	result := &ua.CallMethodResult{}
	switch {
	case len(s.notifiers) > 0 && key == node{uaURI, fmt.Sprintf("i=%d", id.ConditionType_ConditionRefresh)}:
		if s.opts.OnRefresh != nil {
			s.opts.OnRefresh()
		}
		if result.StatusCode = ua.StatusCode(s.opts.RefuseRefresh); result.StatusCode == ua.StatusOK {
			result.StatusCode = s.refreshConditions(made, r)
		}
		return result
	case m == nil || r.ObjectID.IntID() != id.ObjectsFolder:
		result.StatusCode = ua.StatusBadMethodInvalid
		return result
	case len(r.InputArguments) < len(m.Inputs):
		result.StatusCode = ua.StatusBadArgumentsMissing
		return result
	case len(r.InputArguments) > len(m.Inputs):
		result.StatusCode = ua.StatusBadTooManyArguments
		return result
	}
	args := make([]any, len(r.InputArguments))
	for i, a := range r.InputArguments {
		if args[i] = a.Value(); uint32(a.Type()) != m.Inputs[i].Type {
			result.StatusCode = ua.StatusBadInvalidArgument
			result.InputArgumentResults = append(result.InputArgumentResults, ua.StatusBadTypeMismatch)
			return result
		}
	}
	out, status := m.Call(args)
	result.StatusCode = ua.StatusCode(status)
	for _, v := range out {
		result.OutputArguments = append(result.OutputArguments, ua.MustVariant(v))
	}
	return result
}
