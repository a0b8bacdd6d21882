package opcua

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"strconv"
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
	eventType      = "event"
	maxEventTags   = 16          // of a group
	maxEventFields = 64          // that are looked at
	refreshTime    = time.Minute // within which a server tells its conditions
	maxOpen        = 1000        // conditions of a tag that are followed; while there are so many, the severity of others is not looked at
	eventQueue     = 1000        // events that the server keeps until they are published: they come in bursts
)

// event says which events of a node a tag takes.
type event struct {
	severity uint16          // least, 0 = any
	kind     *address        // of the event, its subtypes included; nil = any
	open     map[uint64]bool // the hashes of standing: names are as long as a server likes
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
func (d *driver) Events(ref drivers.Ref) (tags []int) {
	for i, t := range d.groups[ref.Device][ref.Group].tags {
		if t.event != nil {
			tags = append(tags, i)
		}
	}
	return tags
}

// checkEvents looks at what is wrong with the tags of events together.
func (g *group) checkEvents(m mode, device, index int) (errs []error) {
	n := 0
	for i := range g.tags {
		if g.tags[i].event == nil {
			continue
		}
		n++
		switch {
		case m == modeRead:
			errs = append(errs, &drivers.ConfigError{Device: device, Group: index, Tag: i, Field: "type", What: "events come by subscription only, and the device's mode is read", Mend: "remove mode: read, or the tag"})
		case n == maxEventTags+1:
			errs = append(errs, &drivers.ConfigError{Device: device, Group: index, Tag: i, Field: "type", What: fmt.Sprintf("the group has more than %d tags of events", maxEventTags), Mend: "put them into another group"})
		}
	}
	return errs
}

// eventFields are what is asked of each event, in the order of parts of happened. The fields of a type that an event is not of are null.
var eventFields = []struct {
	of   uint32 // the type that has it
	path string // its browse name, or several; "" = the node id of the condition itself
}{
	{id.BaseEventType, "EventType"}, {id.BaseEventType, "EventId"}, {id.BaseEventType, "Time"}, {id.BaseEventType, "SourceName"}, {id.BaseEventType, "Severity"},
	{id.BaseEventType, "Message"}, {id.ConditionType, ""}, {id.ConditionType, "ConditionName"}, {id.ConditionType, "BranchId"}, {id.ConditionType, "Retain"},
	{id.ConditionType, "EnabledState/Id"}, {id.ConditionType, "Comment"}, {id.AcknowledgeableConditionType, "AckedState/Id"},
	{id.AcknowledgeableConditionType, "ConfirmedState/Id"}, {id.AlarmConditionType, "ActiveState/Id"}, {id.ExclusiveLimitAlarmType, "LimitState/CurrentState"},
}

// happened is an event as it is told. What it has not is left out.
type happened struct {
	Type       string `json:"type,omitempty"` // its name where it is one of OPC UA's, else its node id
	Event      string `json:"event,omitempty"`
	Time       string `json:"time,omitempty"` // when it occurred, RFC 3339
	Source     string `json:"source,omitempty"`
	Severity   uint64 `json:"severity,omitempty"`
	Message    string `json:"message,omitempty"`
	Condition  string `json:"condition,omitempty"` // node id
	Name       string `json:"name,omitempty"`      // of the condition
	Branch     string `json:"branch,omitempty"`    // an earlier state of the condition that still wants an answer
	Retain     *bool  `json:"retain,omitempty"`    // somebody should still see to it
	Enabled    *bool  `json:"enabled,omitempty"`
	Comment    string `json:"comment,omitempty"`
	Acked      *bool  `json:"acked,omitempty"`
	Confirmed  *bool  `json:"confirmed,omitempty"`
	Active     *bool  `json:"active,omitempty"`
	Limit      string `json:"limit,omitempty"`      // High, HighHigh, Low, LowLow
	Refresh    bool   `json:"refresh,omitempty"`    // it is told again, because a session began
	Subscribed bool   `json:"subscribed,omitempty"` // no event: from now on they come
	Note       string `json:"note,omitempty"`       // with subscribed: what does not
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
	loud, full := h.Severity >= uint64(e.severity), len(e.open) >= maxOpen
	if !loud && h.Severity > 0 && (h.Condition == "" || !e.open[key] && !full) {
		return false
	}
	if lasts := h.Active != nil && *h.Active || h.Retain != nil && *h.Retain; !lasts {
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

// events hands on the events of an EventNotificationList (OPC 10000-4, 7.25.3).
func (f *feed) events(s *subscription, r *reader) error {
	var p drivers.Push
	var now *member // whose events p has
	for n := r.Count(8); n > 0 && r.Err == nil; n-- {
		m, tag, stray := s.of(r.U32())
		var e happened
		kind, at, err := f.happened(r, &e)
		switch {
		case err != nil:
			return f.spoilt(s, err)
		case stray == nil && m == nil:
			continue
		case stray != nil || m.group.tags[tag].event == nil:
			return protocolError("the server reports an event that was not asked for")
		}
		if m != now {
			if now != nil {
				f.pushPart(now, p, false)
			}
			now, p = m, drivers.Push{}
		}
		switch {
		case kind == id.RefreshStartEventType || kind == id.RefreshEndEventType:
			if delete(m.refreshing, tag); kind == id.RefreshStartEventType {
				m.refreshing[tag] = true
			}
			continue
		case kind == id.RefreshRequiredEventType:
			s.refresh = true
			continue
		case kind == id.EventQueueOverflowEventType:
			p.Lost++
			p.Tags, p.Note = append(p.Tags, uint32(tag)), "the server had no room for all events, and discarded some"
			continue
		}
		if !m.group.tags[tag].event.passes(&e) {
			continue
		}
		e.Refresh = m.refreshing[tag] || e.Condition != "" && f.before(m, at)
		p.Readings = append(p.Readings, e.reading(m.group, tag, at))
		if len(p.Readings) == maxPush {
			f.push(m, p)
			p = drivers.Push{}
		}
	}
	if now != nil {
		f.pushPart(now, p, r.Err == nil)
	}
	return f.spoilt(s, r.Err)
}

// happened takes the fields of one event and returns the number of its type, 0 for one that is not OPC UA's own, and when it occurred, in µs since 1970.
func (f *feed) happened(r *reader, e *happened) (kind uint32, at int64, err error) {
	n := r.Count(1)
	for i := 0; i < n && r.Err == nil; i++ {
		from := r.B
		if r.Variant(0); r.Err != nil || i >= min(len(eventFields), maxEventFields) {
			continue
		}
		v, reason := f.decode.value(from[:len(from)-len(r.B)], wanted{})
		if reason != "" { // null: the event has no such field
			continue
		}
		switch i {
		case 0:
			kind = e.typeOf(v.Text)
		case 2:
			if v.Kind == telemetry.KindTime {
				at = micros(int64(v.Bits))
			}
		}
		e.set(i, v)
	}
	return kind, at, r.Err
}

// typeOf names the type of an event.
func (e *happened) typeOf(text string) (kind uint32) {
	e.Type = text
	if number, ok := strings.CutPrefix(text, "i="); ok {
		n, _ := strconv.ParseUint(number, 10, 32)
		kind = uint32(n)
		if name := id.Name(kind); name != "" && name != number {
			e.Type = name
		}
	}
	return kind
}

// set takes the value of a field, by its index in eventFields.
func (e *happened) set(field int, v telemetry.Value) {
	text := [...]*string{1: &e.Event, 3: &e.Source, 5: &e.Message, 6: &e.Condition, 7: &e.Name, 8: &e.Branch, 11: &e.Comment, 15: &e.Limit}
	flag := [...]**bool{9: &e.Retain, 10: &e.Enabled, 12: &e.Acked, 13: &e.Confirmed, 14: &e.Active}
	switch {
	case field == 2 && v.Kind == telemetry.KindTime:
		e.Time = v.AsTime().Format(time.RFC3339Nano)
	case field == 4 && v.Kind == telemetry.KindUint:
		e.Severity = v.Bits
	case field < len(text) && text[field] != nil && v.Kind == telemetry.KindString:
		*text[field] = v.Text
	case field < len(flag) && flag[field] != nil && v.Kind == telemetry.KindBool:
		yes := v.Bits != 0
		*flag[field] = &yes
	}
	if field == 8 && v.Text == "i=0" { // no branch
		e.Branch = ""
	}
}

// reading returns an event as a reading. It is uncertain where it may be of another node.
func (e *happened) reading(g *group, tag int, at int64) telemetry.Reading {
	text, err := json.Marshal(e)
	switch {
	case err != nil:
		return telemetry.BadReading(tag, at, "BUG: "+err.Error())
	case len(text) > maxText:
		return telemetry.BadReading(tag, at, fmt.Sprintf("event of %d bytes is over %d", len(text), maxText))
	}
	r := telemetry.Reading{Tag: uint32(tag), Time: at, Value: telemetry.String(string(text))}
	if why := g.doubtOf(tag); why != "" {
		r.Quality, r.Reason = telemetry.Uncertain, why
	}
	return r
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
