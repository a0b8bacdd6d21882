package opcua

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

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

// lasts reports whether it is a state that is not over: the condition is active, or somebody should still see to it.
func (e *happened) lasts() bool {
	return e.Active != nil && *e.Active || e.Retain != nil && *e.Retain
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
		f.event(m, tag, kind, at, &e, &p)
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

// event takes one event of a tag.
func (f *feed) event(m *member, tag int, kind uint32, at int64, e *happened, p *drivers.Push) {
	if kind == id.EventQueueOverflowEventType {
		m.burst.overflow(tag, p)
		return
	}
	m.burst.came(tag, p)
	switch {
	case kind == id.RefreshStartEventType || kind == id.RefreshEndEventType:
		if delete(m.refreshing, tag); kind == id.RefreshStartEventType {
			m.refreshing[tag] = true
		}
	case kind == id.RefreshRequiredEventType:
		m.refresh = true
	case m.group.tags[tag].event.passes(e):
		e.Refresh = m.group.tags[tag].event.again(e, at, m.refreshing[tag], f.before(m, at), m.listens)
		p.Readings = append(p.Readings, e.reading(m.group, tag, at))
	}
}

// happened takes the fields of one event and returns the number of its type, 0 for one that is not OPC UA's own, and when it occurred, in µs since 1970,
// 0 where it does not say: see timeOf.
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
			if v.Kind != telemetry.KindTime {
				break
			}
			if at = saidTime(int64(v.Bits)); at == 0 {
				continue
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
