package jsonmsg

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// eventSchema has the tags of events a and b, and c, of values.
func eventSchema() *record.Schema {
	s := schemaOf("a", "b", "c")
	s.Data = []telemetry.DataType{telemetry.EventType, telemetry.EventType, telemetry.AnyType}
	return s
}

func event(tag uint32, us int64, text string) telemetry.Reading {
	return timed(reading(tag, telemetry.String(text)), us)
}

// eventMessages pairs readings of eventSchema with everything that follows head in their message.
var eventMessages = []struct {
	name     string
	readings []telemetry.Reading
	want     string
}{
	{"in the order in which they came", []telemetry.Reading{
		event(1, at, `{"type":"AlarmConditionType","severity":700,"acked":false}`), event(0, at-5000, `{"message":"<\"é\u2028>"}`), event(1, at-9000, `{}`),
	}, `,"kind":"event","values":{},"bad":{},"events":[{"tag":"b","ts":1766480000123,"event":{"type":"AlarmConditionType","severity":700,"acked":false}},` +
		`{"tag":"a","ts":1766480000118,"event":{"message":"<\"é\u2028>"}},{"tag":"b","ts":1766480000114,"event":{}}]}`},
	{"they come from now on", []telemetry.Reading{event(0, at, `{"subscribed":true}`), event(1, at, `{"subscribed":true,"note":"the server \"does not\""}`)},
		`,"kind":"event","values":{},"bad":{},"events":[{"tag":"a","ts":1766480000123,"subscribed":true},{"tag":"b","ts":1766480000123,"subscribed":true,"note":"the server \"does not\""}]}`},
	{"what only looks like that", []telemetry.Reading{event(0, at, `{"subscribed":true,"tag":"x"}`), event(0, at, `{"subscribed":true}}`), event(0, at, `{"subscribed":true,"note":1}`)},
		`,"kind":"event","values":{},"bad":{},"events":[{"tag":"a","ts":1766480000123,"event":{"subscribed":true,"tag":"x"}},{"tag":"a","ts":1766480000123,"text":"{\"subscribed\":true}}"},` +
			`{"tag":"a","ts":1766480000123,"event":{"subscribed":true,"note":1}}]}`},
	{"bad tags", []telemetry.Reading{telemetry.BadReading(0, at, "BadNodeIdUnknown"), timed(telemetry.BadReading(1, 0, ""), at-1000)},
		`,"kind":"event","values":{},"bad":{"a":"BadNodeIdUnknown","b":"bad"},"times":{"b":1766480000122},"events":[]}`},
	{"bad before and after", []telemetry.Reading{telemetry.BadReading(0, at, "too long"), event(0, at, `{"n":1}`), event(1, at, `{"n":2}`), telemetry.BadReading(1, at, "gone")},
		`,"kind":"event","values":{},"bad":{"b":"gone"},"events":[{"tag":"a","ts":1766480000123,"bad":"too long"},{"tag":"a","ts":1766480000123,"event":{"n":1}},{"tag":"b","ts":1766480000123,"event":{"n":2}}]}`},
	{"uncertain", []telemetry.Reading{uncertain(event(0, at, `{"n":1}`), "perhaps"), uncertain(event(0, at, `x`), "")},
		`,"kind":"event","values":{},"bad":{},"events":[{"tag":"a","ts":1766480000123,"event":{"n":1},"uncertain":"perhaps"},{"tag":"a","ts":1766480000123,"text":"x","uncertain":"uncertain"}]}`},
	{"no event", []telemetry.Reading{reading(0, telemetry.Int(1)), reading(0, telemetry.Value{}), uncertain(reading(0, telemetry.Value{}), "why")},
		`,"kind":"event","values":{},"bad":{},"events":[{"tag":"a","ts":1766480000123,"bad":"not an event"},{"tag":"a","ts":1766480000123,"bad":"not an event"},{"tag":"a","ts":1766480000123,"bad":"why"}]}`},
	{"values beside stay as they are", []telemetry.Reading{reading(2, telemetry.Int(1))}, `,"values":{"c":1},"bad":{}}`},
	{"mixed with values, which no pipeline does", []telemetry.Reading{event(0, at, `{"n":1}`), reading(2, telemetry.Int(1))}, `,"values":{"a":"{\"n\":1}","c":1},"bad":{}}`},
	{"no readings", nil, `,"values":{},"bad":{}}`},
}

func TestEventMessages(t *testing.T) {
	s := openStream(t, Options{Gateway: "press-shop"}, eventSchema())
	contract := compileSchema(t)
	for _, m := range eventMessages {
		t.Run(m.name, func(t *testing.T) {
			rec := &record.Record{Time: at, Readings: m.readings}
			got, err := s.AppendRecord(nil, 1234, true, rec)
			if want := head + `,"historical":true` + m.want; err != nil || string(got) != want {
				t.Errorf("got  %s (%v)\nwant %s", got, err, want)
			}
			holds(t, contract, got)
		})
	}
	if _, err := s.AppendRecord(nil, 1, false, &record.Record{Readings: []telemetry.Reading{event(3, at, `{}`)}}); err == nil {
		t.Error("a tag that the schema does not have is no error")
	}
}

// TestEventsOfAnOlderStore: before there were records of events, these were texts among the values.
func TestEventsOfAnOlderStore(t *testing.T) {
	schema := eventSchema()
	schema.Data[0], schema.Data[1] = telemetry.StringType, telemetry.AnyType
	s := openStream(t, Options{Gateway: "press-shop"}, schema)
	got, err := s.AppendRecord(nil, 1234, false, &record.Record{Time: at, Readings: []telemetry.Reading{event(0, at, `{"n":1}`), event(1, at, `{"n":2}`)}})
	if want := head + `,"values":{"a":"{\"n\":1}","b":"{\"n\":2}"},"bad":{}}`; err != nil || string(got) != want {
		t.Errorf("got  %s (%v)\nwant %s", got, err, want)
	}
}

// FuzzEvent: whatever the text of an event is, the message is JSON that holds to the contract, and the text comes back.
func FuzzEvent(f *testing.F) {
	for _, m := range eventMessages {
		for i := range m.readings {
			f.Add(m.readings[i].Value.Text)
		}
	}
	f.Add(strings.Repeat(`{"a":`, maxDepth+1))
	contract := compileSchema(f)
	s := openStream(f, Options{}, eventSchema())
	f.Fuzz(func(t *testing.T, text string) {
		got, err := s.AppendRecord(nil, 1, false, &record.Record{Time: at, Readings: []telemetry.Reading{event(0, at, text), event(1, at, `{"last":true}`)}})
		if err != nil || !json.Valid(got) || !utf8.Valid(got) {
			t.Fatalf("%v: %s", err, got)
		}
		holds(t, contract, got)
		var m struct {
			Events []struct {
				Event any
				Text  string
			}
		}
		if err := json.Unmarshal(got, &m); err != nil || len(m.Events) != 2 || !reflect.DeepEqual(m.Events[1].Event, any(map[string]any{"last": true})) {
			t.Fatalf("%v: %s", err, got)
		}
		var want any
		switch _, begun := telemetry.Subscribed(text); {
		case begun:
		case m.Events[0].Event == nil:
			if m.Events[0].Text != string([]rune(text)) {
				t.Fatalf("text: %s", got)
			}
		case json.Unmarshal([]byte(text), &want) != nil || !reflect.DeepEqual(m.Events[0].Event, want):
			t.Fatalf("event %#v of %q", m.Events[0].Event, text)
		}
	})
}
