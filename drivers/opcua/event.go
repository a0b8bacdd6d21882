package opcua

import (
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// A tag of the type event is not a value of its node but what happens there: each event, alarm and change of a condition
// (OPC 10000-5, 6.4; OPC 10000-9) is a reading whose value is JSON.

const (
	eventType    = "event"
	maxEventTags = 16          // of a group
	refreshTime  = time.Minute // within which a server tells its conditions
	maxOpen      = 1000        // conditions of a tag that are followed; while there are so many, the severity of others is not looked at
	eventQueue   = 1000        // events that the server keeps until they are published: they come in bursts
)

// event says which events of a node a tag takes.
type event struct {
	severity uint16          // least, 0 = any
	kind     *address        // of the event, its subtypes included; nil = any
	open     map[uint64]bool // the hashes of standing: names are as long as a server likes
	last     map[uint64]last // by the same, what was told of it last
}

// last is the event that was told last of a condition.
type last struct {
	id uint64 // hash of its EventId
	at int64  // when it occurred, µs since 1970
}

// standing is a state of a condition that was told and is not over: it is active, or somebody should still see to it.
type standing struct{ condition, branch string }

var openSeed = maphash.MakeSeed()

// parseEvent reads the options of a tag of the type event.
func parseEvent(from *telemetry.Tag, fail func(field, what, mend string)) *event {
	e := &event{}
	if v := from.Options["min_severity"]; v != "" {
		n, err := parseDecimal(v, 16)
		if err != nil || n < 1 || n > 1000 {
			fail("min_severity", fmt.Sprintf("min_severity %q is no severity", v), "use 1 (information) to 1000 (catastrophe)")
		}
		e.severity = uint16(n)
	}
	if v := from.Options["event_type"]; v != "" {
		a, m := parseAddress(v)
		if m == nil && a.kind == byPath {
			m = &mistake{what: "is a browse path"}
		}
		if m != nil {
			fail("event_type", fmt.Sprintf("event_type %q: %s", clip(v), m.what), "use the node id of a type, such as i=2915 (alarms) or i=2782 (conditions)")
		}
		e.kind = &a
	}
	for _, name := range []string{"field", "enum"} {
		if from.Options[name] != "" {
			fail(name, name+" is of values, and the tag takes events", "remove one of them")
		}
	}
	if from.Scaled() {
		fail("type", "events cannot be scaled", "remove scale and offset")
	}
	return e
}

// Events returns the tags of the group that are of events: see drivers.Eventful.
func (d *driver) Events(ref drivers.Ref) []int { return d.groups[ref.Device][ref.Group].eventTags() }

// eventTags returns the tags that are of events.
func (g *group) eventTags() (tags []int) {
	for i := range g.tags {
		if g.tags[i].event != nil {
			tags = append(tags, i)
		}
	}
	return tags
}

// checkEvents looks at what is wrong with the tags of events together.
func (g *group) checkEvents(m mode, device, index int) (errs []error) {
	for n, i := range g.eventTags() {
		switch {
		case m == modeRead:
			errs = append(errs, &drivers.ConfigError{Device: device, Group: index, Tag: i, Field: "type", What: "events come by subscription only, and the device's mode is read", Mend: "remove mode: read, or the tag"})
		case n == maxEventTags:
			errs = append(errs, &drivers.ConfigError{Device: device, Group: index, Tag: i, Field: "type", What: fmt.Sprintf("the group has more than %d tags of events", maxEventTags), Mend: "put them into another group"})
		}
	}
	return errs
}

// eventField is what is asked of each event.
type eventField struct {
	of   uint32 // the type that has it
	path string // its browse name, or several; "" = the node id of the condition itself
	node bool   // it is a node id
	id   bool   // a part of it is worth nothing
}

// eventFields are in the order of parts of happened. The fields of a type that an event is not of are null.
var eventFields = []eventField{
	{of: id.BaseEventType, path: "EventType", node: true, id: true}, {of: id.BaseEventType, path: "EventId", id: true}, {of: id.BaseEventType, path: "Time"}, {of: id.BaseEventType, path: "SourceName"},
	{of: id.BaseEventType, path: "Severity"}, {of: id.BaseEventType, path: "Message"}, {of: id.ConditionType, path: "", node: true, id: true}, {of: id.ConditionType, path: "ConditionName"},
	{of: id.ConditionType, path: "BranchId", node: true, id: true}, {of: id.ConditionType, path: "Retain"}, {of: id.ConditionType, path: "EnabledState/Id"}, {of: id.ConditionType, path: "Comment"},
	{of: id.AcknowledgeableConditionType, path: "AckedState/Id"}, {of: id.AcknowledgeableConditionType, path: "ConfirmedState/Id"}, {of: id.AlarmConditionType, path: "ActiveState/Id"},
	{of: id.ExclusiveLimitAlarmType, path: "LimitState/CurrentState"},
}

// filter returns the encoded EventFilter (OPC 10000-4, 7.22.3) of a tag, an ExtensionObject. kind is the index of the type's namespace.
func (e *event) filter(kind uint16) ([]byte, error) {
	f := &ua.EventFilter{WhereClause: &ua.ContentFilter{}}
	for _, x := range eventFields {
		f.SelectClauses = append(f.SelectClauses, operand(x.of, x.path))
	}
	literal := func(v any) *ua.ExtensionObject {
		return ua.NewExtensionObject(&ua.LiteralOperand{Value: ua.MustVariant(v)})
	}
	element := func(op ua.FilterOperator, with ...*ua.ExtensionObject) {
		f.WhereClause.Elements = append(f.WhereClause.Elements, &ua.ContentFilterElement{FilterOperator: op, FilterOperands: with})
	}
	var types []*ua.NodeID
	switch {
	case e.kind != nil:
		types = append(types, e.kind.nodeID(kind))
	case e.severity > 0:
		types = append(types, ua.NewNumericNodeID(0, id.ConditionType)) // see passes
	default:
		return ua.Encode(ua.NewExtensionObject(f))
	}
	// Servers should let these three through any filter (OPC 10000-9, 4.5), and do not.
	for _, i := range []uint32{id.RefreshStartEventType, id.RefreshEndEventType, id.RefreshRequiredEventType} {
		types = append(types, ua.NewNumericNodeID(0, i))
	}
	either := func() { // what stands behind it, or all the rest
		n := uint32(len(f.WhereClause.Elements))
		element(ua.FilterOperatorOr, ua.NewExtensionObject(&ua.ElementOperand{Index: n + 1}), ua.NewExtensionObject(&ua.ElementOperand{Index: n + 2}))
	}
	if e.kind == nil {
		either()
		element(ua.FilterOperatorGreaterThanOrEqual, ua.NewExtensionObject(operand(id.BaseEventType, "Severity")), literal(e.severity))
	}
	for i, n := range types {
		if i < len(types)-1 {
			either()
		}
		element(ua.FilterOperatorOfType, literal(n))
	}
	return ua.Encode(ua.NewExtensionObject(f))
}

// passes reports whether an event is severe enough. The server sends those of conditions whatever their severity, because the end of an alarm often has
// a lower one than the alarm, or none.
func (e *event) passes(h *happened) bool {
	if e.severity == 0 {
		return true
	}
	key := maphash.Comparable(openSeed, standing{h.Condition, h.Branch})
	none := h.Severity == nil || *h.Severity == 0
	loud, full := !none && *h.Severity >= uint64(e.severity), len(e.open) >= maxOpen
	if !loud && !none && (h.Condition == "" || !e.open[key] && !full) {
		return false
	}
	if !h.lasts() {
		delete(e.open, key)
	} else if loud && !full {
		if e.open == nil {
			e.open = map[uint64]bool{}
		}
		e.open[key] = true
	}
	return true
}

// operand names a field of events, or the id of the condition.
func operand(of uint32, path string) *ua.SimpleAttributeOperand {
	o := &ua.SimpleAttributeOperand{TypeDefinitionID: ua.NewNumericNodeID(0, of), AttributeID: ua.AttributeIDValue}
	if path == "" {
		o.AttributeID = ua.AttributeIDNodeID
		return o
	}
	for name := range strings.SplitSeq(path, "/") {
		o.BrowsePath = append(o.BrowsePath, &ua.QualifiedName{Name: name})
	}
	return o
}

// notifierOf asks for the events of a node: an encoded ReadValueId.
func notifierOf(n *ua.NodeID) ([]byte, error) {
	return ua.Encode(&ua.ReadValueID{NodeID: n, AttributeID: ua.AttributeIDEventNotifier, DataEncoding: &ua.QualifiedName{}})
}

// refresh has the server tell the states of all conditions of a subscription that somebody should still see to (OPC 10000-9, 5.5.7). A server that refuses may
// have no conditions, or an alarm that stands and that nobody hears of: that is said.
func (f *feed) refresh(s *subscription) error {
	s.refresh, s.asked = false, time.Now()
	unheld, err := f.askConditions(s.id)
	for _, m := range s.members {
		if len(m.group.ask.filters) == 0 {
			continue
		}
		before := m.group.unheld
		if m.group.unheld = unheld; f.first == nil && unheld != "" && unheld != before {
			f.push(m, drivers.Push{Note: "the server " + m.group.unheldWords()})
		}
	}
	return unlessRefused(err)
}

// askConditions calls ConditionRefresh for a subscription, and returns why the server does not tell its conditions, "" when it does. An error is of the call.
func (f *feed) askConditions(subscription uint32) (unheld string, err error) {
	if f.finder.lost.often(anyCondition) {
		return "the server drops the connection, or does not answer, when it is asked", nil
	}
	if err := f.link.channel.Err(); err != nil { // not over this question
		return "", err
	}
	call := &ua.CallMethodRequest{ObjectID: ua.NewNumericNodeID(0, id.ConditionType), MethodID: ua.NewNumericNodeID(0, id.ConditionType_ConditionRefresh),
		InputArguments: []*ua.Variant{ua.MustVariant(subscription)}}
	r, err := f.call(f.ctx, id.CallRequest_Encoding_DefaultBinary, id.CallResponse_Encoding_DefaultBinary, encode(&struct{ Methods []*ua.CallMethodRequest }{[]*ua.CallMethodRequest{call}}))
	lost := f.link.channel.Err()
	if err == nil {
		lost = nil
	}
	f.finder.lost.note(anyCondition, lost)
	switch {
	case lost != nil && f.ctx.Err() == nil:
		return "", over(err, anyCondition)
	case err != nil:
		return err.Error(), err
	}
	if status := ua.StatusCode(first(&r)); status>>31 != 0 && status != ua.StatusBadRefreshInProgress {
		return statusText(status), nil
	}
	return "", nil
}

// unheldWords says that conditions that stand are not told.
func (g *group) unheldWords() string {
	return "does not tell which conditions stand (ConditionRefresh: " + g.unheld + "): an alarm from before is not seen until it changes"
}

// first returns the status of the first result of a list, 0 where there is none.
func first(r *reader) uint32 {
	if r.Count(4) == 0 {
		return 0
	}
	return r.U32()
}

// again reports whether an event of a condition is one that is told again, and remembers it. marked is that the server says that it tells its conditions now.
func (e *event) again(h *happened, at int64, marked, before bool, listens int64) bool {
	switch {
	case h.Condition == "" && h.Active == nil && h.Retain == nil: // no condition
		return false
	case h.Condition == "": // some servers do not say which
		return marked
	}
	key := maphash.Comparable(openSeed, standing{h.Condition, h.Branch})
	now := last{maphash.String(openSeed, h.Event), at}
	was, known := e.last[key]
	if !h.lasts() {
		delete(e.last, key)
	} else if known || len(e.last) < maxOpen {
		if e.last == nil {
			e.last = map[uint64]last{}
		}
		e.last[key] = now
	}
	switch {
	case known && h.Event != "" && was.id == now.id:
		return true
	case marked: // what happens meanwhile comes in between
		return !known || at <= was.at || at < listens
	}
	return before
}

// before reports whether an event that comes now occurred before the server monitored for us, so that it can only be a condition that is told again: some
// servers put the marks of a refresh among the events of the server itself only.
func (f *feed) before(m *member, at int64) bool {
	return at != 0 && at < m.listens && f.came.Sub(m.asked) < refreshTime
}

// begun returns what those of the tags read from now on that are of events and are monitored: that they come.
func (m *member) begun(tags []int) (readings []telemetry.Reading) {
	for _, tag := range tags {
		if _, refused := m.reasons[tag]; m.group.tags[tag].event != nil && !refused {
			e := happened{Subscribed: true}
			if m.group.unheld != "" {
				e.Note = "the server " + m.group.unheldWords()
			}
			readings = append(readings, e.reading(m.group, tag, 0))
		}
	}
	return readings
}
