package opcua

import (
	"github.com/gopcua/opcua/id"

	"millrace/drivers"
)

// happened is an event as it is told. What it has not is left out.
type happened struct {
	Type       string  `json:"type,omitempty"` // its name where it is one of OPC UA's, else its node id
	Event      string  `json:"event,omitempty"`
	Time       string  `json:"time,omitempty"` // when it occurred, RFC 3339
	Source     string  `json:"source,omitempty"`
	Severity   *uint64 `json:"severity,omitempty"` // 1 to 1000, and what else the server says
	Message    string  `json:"message,omitempty"`
	Condition  string  `json:"condition,omitempty"` // node id
	Name       string  `json:"name,omitempty"`      // of the condition
	Branch     string  `json:"branch,omitempty"`    // an earlier state of the condition that still wants an answer
	Retain     *bool   `json:"retain,omitempty"`    // somebody should still see to it
	Enabled    *bool   `json:"enabled,omitempty"`
	Comment    string  `json:"comment,omitempty"`
	Acked      *bool   `json:"acked,omitempty"`
	Confirmed  *bool   `json:"confirmed,omitempty"`
	Active     *bool   `json:"active,omitempty"`
	Limit      string  `json:"limit,omitempty"`      // High, HighHigh, Low, LowLow
	Refresh    bool    `json:"refresh,omitempty"`    // it is told again, because a session began
	Subscribed bool    `json:"subscribed,omitempty"` // no event: from now on they come
	Note       string  `json:"note,omitempty"`       // with subscribed: what does not

	lacks []string // what the server told of it and is not here, in words; at most one for each field
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
		m.refreshing[tag] = kind == id.RefreshStartEventType
	case kind == id.RefreshRequiredEventType:
		m.refresh = true
	case m.group.tags[tag].event.passes(e):
		marked, marks := m.refreshing[tag] // where there are marks, they say it
		e.Refresh = m.group.tags[tag].event.again(e, at, marked, !marks && f.before(m, at), m.listens)
		p.Readings = append(p.Readings, e.reading(m.group, tag, at))
	}
}
