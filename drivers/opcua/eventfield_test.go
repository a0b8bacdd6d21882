package opcua

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// TestPartsOfEvents: an event of which something is not told says so, and tells the rest.
func TestPartsOfEvents(t *testing.T) {
	s := start(t, opcuasim.Options{}, 1)
	_, pushes := subscribed(t, ofPress(s))
	long := strings.Repeat("ü", 35000)
	for _, c := range []struct {
		odd    map[string]any
		reason string // "" = it is whole
		holds  []string
	}{
		{map[string]any{"Message": nil, "SourceName": nil, "Comment": nil}, "", []string{`"severity":500`}},
		{map[string]any{"Message": ua.NewLocalizedText(long)}, "Message is cut after 65", []string{`"message":"üüüü`, `"severity":500`, `"condition":"`}},
		{map[string]any{"SourceName": strings.Repeat("x", 66000), "Message": ua.NewLocalizedText(long)}, "SourceName is cut after ", []string{`"message":"üüüü`, `"source":"xxx`}},
		{map[string]any{"Message": ua.NewLocalizedText("<" + strings.Repeat("&", 20000))}, "Message is cut after ", []string{`"severity":500`}},
		{map[string]any{"EventId": make([]byte, 40000)}, "EventId is left out: it has 80000 bytes", []string{`"severity":500`}},
		{map[string]any{"Severity": "high", "Message": 1.5}, "Severity is left out: the server sends it in another type than it has; Message is left out: ", []string{`"active":true`}},
		{map[string]any{"Severity": []uint16{1}, "": "ns=2;s=x"}, "Severity is left out: the server sends it in another type than it has; the id of the condition is left out: ", []string{`"active":true`}},
		{map[string]any{"Severity": uint16(0)}, "", []string{`"severity":0,`}}, // which OPC UA does not have
		{map[string]any{"Time": "noon"}, "Time is left out: ", []string{`"severity":500`}},
		{map[string]any{"Comment": ua.StatusBadUserAccessDenied, "Message": ua.StatusBadConditionDisabled, "LimitState/CurrentState": ua.StatusBadStateNotActive}, "Comment is left out: BadUserAccessDenied: ", []string{`"severity":500`}},
		{map[string]any{"Message": ua.NewExtensionObject(&ua.Range{})}, "Message is left out: ", []string{`"severity":500`}},
	} {
		s.Raise(opcuasim.Event{Node: "press", Type: id.AlarmConditionType, Condition: "hot", Message: "m", Severity: 500, Active: true, Odd: c.odd})
		var r telemetry.Reading
		next(t, pushes, func(p *drivers.Push) bool {
			for _, r = range p.Readings {
				if !strings.Contains(r.Value.Text, `"subscribed"`) {
					return true
				}
			}
			return false
		})
		want := telemetry.Uncertain
		if c.reason == "" {
			want = telemetry.Good
		}
		text := r.Value.Text
		if r.Quality != want || !strings.HasPrefix(r.Reason, c.reason) || strings.Contains(r.Reason, "NotActive") || len(text) > maxText || !json.Valid([]byte(text)) || !utf8.ValidString(text) || strings.Contains(text, "\ufffd") {
			t.Errorf("%s: %v %q, %d bytes: %.200s", c.reason, r.Quality, r.Reason, len(text), text)
		}
		for _, part := range c.holds {
			if !strings.Contains(text, part) {
				t.Errorf("%s: no %s in %.300s", c.reason, part, text)
			}
		}
	}
}
