package opcuasim

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// Event is something that happens at a node. One with a Condition is a state of it, which is told again to those who ask (ConditionRefresh) for as long as
// Retain says.
type Event struct {
	Node     string    // the node that tells it: see AddNotifier; "" = the server only
	Type     uint32    // of namespace 0, one of those in supertypes; 0 = BaseEventType
	Time     time.Time // zero = now
	Source   string
	Severity uint16
	Message  string

	Condition string // its node id is "s=<condition>"; "" = none
	Limit     string // of a limit alarm: High, HighHigh, Low, LowLow
	Active    bool
	Acked     bool
	Retain    bool

	Odd map[string]any // fields that it tells otherwise, by browse path; nil = null

	serial uint32
}

// supertypes are the types of events that the server knows, each with the one that it is derived from.
var supertypes = map[uint32]uint32{
	id.ExclusiveLimitAlarmType: id.LimitAlarmType, id.LimitAlarmType: id.AlarmConditionType, id.AlarmConditionType: id.AcknowledgeableConditionType,
	id.AcknowledgeableConditionType: id.ConditionType, id.ConditionType: id.BaseEventType,
	id.GeneralModelChangeEventType: id.BaseModelChangeEventType, id.BaseModelChangeEventType: id.BaseEventType,
	id.RefreshStartEventType: id.SystemEventType, id.RefreshEndEventType: id.SystemEventType, id.SystemEventType: id.BaseEventType,
}

// is reports whether the event is of a type.
func (e *Event) is(kind uint32) bool {
	for t := e.Type; t != 0; t = supertypes[t] {
		if t == kind {
			return true
		}
	}
	return false
}

// AddNotifier makes the node "s=<name>" of the first namespace one that tells events, and the server another.
func (s *Server) AddNotifier(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notifiers[node{s.opts.Namespaces[0], "s=" + name}] = true
	s.notifiers[serverNode] = true
}

// ModelChanged tells those who listen to the server that nodes have come or gone.
func (s *Server) ModelChanged() {
	s.Raise(Event{Type: id.GeneralModelChangeEventType, Source: "Server", Severity: 100, Message: "nodes have come or gone"})
}

var serverNode = node{uaURI, "i=2253"}

// maxStanding bounds the conditions that the server knows; the event of one more is told, and not again.
const maxStanding = 1000

// Raise tells an event to those who have subscribed it.
func (s *Server) Raise(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.serial = s.serial.Add(1); e.Time.IsZero() {
		e.Time = s.now()
	}
	if e.Type == 0 {
		e.Type = id.BaseEventType
	}
	if _, known := s.standing[e.Condition]; !e.Retain {
		delete(s.standing, e.Condition)
	} else if known || len(s.standing) < maxStanding {
		s.standing[e.Condition] = e
	}
	for _, made := range s.sessions {
		made.subs.mu.Lock()
		for _, sub := range made.subs.all {
			for _, i := range sub.items {
				s.tell(i, &e)
			}
		}
		made.subs.mu.Unlock()
	}
}

// tell queues an event for an item, if it is one for that. The server tells all.
func (s *Server) tell(i *item, e *Event) {
	at := node{s.opts.Namespaces[0], "s=" + e.Node}
	if i.events == nil || i.key != serverNode && i.key != at || !passes(i.events, e) {
		return
	}
	list := &ua.EventFieldList{ClientHandle: i.handle}
	for _, c := range i.events.SelectClauses {
		list.EventFields = append(list.EventFields, ua.MustVariant(s.field(e, c)))
	}
	if i.told = append(i.told, list); len(i.told) > i.size {
		i.told = i.told[1:]
	}
}

// field returns what an event says where a client asks for it; nil = nothing.
func (s *Server) field(e *Event, c *ua.SimpleAttributeOperand) any {
	var names []string
	for _, n := range c.BrowsePath {
		names = append(names, n.Name)
	}
	if v, odd := e.Odd[strings.Join(names, "/")]; odd {
		return v
	}
	if e.Condition != "" {
		if v := s.conditionField(e, strings.Join(names, "/")); v != nil {
			return v
		}
	}
	switch strings.Join(names, "/") {
	case "EventType":
		return ua.NewNumericNodeID(0, e.Type)
	case "EventId":
		return binary.BigEndian.AppendUint32(nil, e.serial)
	case "Time":
		return e.Time
	case "SourceName":
		return e.Source
	case "Severity":
		return e.Severity
	case "Message":
		return ua.NewLocalizedText(e.Message)
	}
	return nil
}

// conditionField is field of what only conditions have.
func (s *Server) conditionField(e *Event, path string) any {
	switch path {
	case "":
		if n := s.nodeID(node{s.opts.Namespaces[0], "s=" + e.Condition}); n != nil {
			return n
		}
	case "ConditionName":
		return e.Condition
	case "BranchId":
		return ua.NewTwoByteNodeID(0)
	case "Retain":
		return e.Retain
	case "EnabledState/Id":
		return true
	case "AckedState/Id":
		return e.Acked
	case "ActiveState/Id":
		return e.Active
	case "LimitState/CurrentState":
		if e.Limit != "" {
			return ua.NewLocalizedText(e.Limit)
		}
	}
	return nil
}

// passes judges an event by the filter of an item: by the operators that are needed to tell types and severities.
func passes(f *ua.EventFilter, e *Event) bool {
	if f.WhereClause == nil || len(f.WhereClause.Elements) == 0 {
		return true
	}
	return holds(f.WhereClause.Elements, 0, e)
}

func holds(all []*ua.ContentFilterElement, at int, e *Event) bool {
	element := all[at]
	below := func(o *ua.ExtensionObject) bool {
		to, ok := o.Value.(*ua.ElementOperand)
		return ok && int(to.Index) > at && int(to.Index) < len(all) && holds(all, int(to.Index), e)
	}
	of := element.FilterOperands
	switch element.FilterOperator {
	case ua.FilterOperatorOr:
		return len(of) == 2 && (below(of[0]) || below(of[1]))
	case ua.FilterOperatorAnd:
		return len(of) == 2 && below(of[0]) && below(of[1])
	case ua.FilterOperatorOfType:
		if literal, ok := of[0].Value.(*ua.LiteralOperand); ok {
			kind, _ := literal.Value.Value().(*ua.NodeID)
			return kind != nil && kind.Namespace() == 0 && e.is(kind.IntID())
		}
	case ua.FilterOperatorGreaterThanOrEqual:
		if literal, ok := of[1].Value.(*ua.LiteralOperand); ok {
			least, _ := literal.Value.Value().(uint16)
			return e.Severity >= least
		}
	}
	return false
}

// refreshConditions tells the standing conditions again to the items of a subscription (OPC 10000-9, 5.5.7).
func (s *Server) refreshConditions(made *session, r *ua.CallMethodRequest) ua.StatusCode {
	s.refreshes.Add(1)
	if len(r.InputArguments) != 1 {
		return ua.StatusBadArgumentsMissing
	}
	which, _ := r.InputArguments[0].Value().(uint32)
	sub, unlock := made.subs.get(which)
	if sub == nil {
		return ua.StatusBadSubscriptionIDInvalid
	}
	defer unlock()
	mark := func(i *item, kind uint32) {
		if s.opts.UnmarkedRefresh && i.key != serverNode {
			return
		}
		s.tell(i, &Event{Type: kind, Time: s.now(), Source: "Server", Severity: 100, serial: s.serial.Add(1), Node: strings.TrimPrefix(i.key.identifier, "s=")})
	}
	for _, i := range sub.items {
		mark(i, id.RefreshStartEventType)
		for _, e := range s.standing {
			s.tell(i, &e)
		}
		mark(i, id.RefreshEndEventType)
	}
	return ua.StatusOK
}

// events takes the events of one message out of the queues.
func (sub *subscription) events() (all []*ua.EventFieldList) {
	for _, i := range sub.items {
		for len(i.told) > 0 && (sub.most == 0 || len(all) < sub.most) {
			all, i.told = append(all, i.told[0]), i.told[1:]
		}
	}
	return all
}
