package jsonmsg

import (
	"bytes"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"millrace/drivers/telemetry"
	"millrace/gateway/format"
	"millrace/gateway/record"
)

// testStream encodes the records of one schema of the epoch 6f1c.
type testStream struct{ *stream }

func openStream(t testing.TB, o Options, schema *record.Schema) *testStream {
	t.Helper()
	if o.Topic == "" {
		o.Topic = "telemetry/{gateway}/{device}/{group}"
	}
	if _, err := New(o); err != nil {
		t.Fatal(err)
	}
	s, err := newStream(&o, schema, &scratch{})
	if err != nil {
		t.Fatal(err)
	}
	return &testStream{s}
}

func (s *testStream) AppendRecord(dst []byte, seq uint64, historical bool, r *record.Record) ([]byte, error) {
	return s.appendRecord(dst, &format.Record{Epoch: "6f1c", Seq: seq, Historical: historical, Record: r, Time: r.Time})
}

func (s *testStream) AppendGap(dst []byte, seq uint64, historical bool, at int64, g *format.Gap) []byte {
	return s.appendGap(dst, &format.Record{Epoch: "6f1c", Seq: seq, Historical: historical, Gap: g, Time: at})
}

func schemaOf(names ...string) *record.Schema {
	s := &record.Schema{Device: "press-1", Group: "fast"}
	for _, n := range names {
		s.Tags = append(s.Tags, record.Tag{Name: n})
	}
	return s
}

const at = 1766480000123456 // µs

func reading(tag uint32, v telemetry.Value) telemetry.Reading {
	return telemetry.Reading{Tag: tag, Time: at, Value: v}
}

func uncertain(r telemetry.Reading, why string) telemetry.Reading {
	r.Quality, r.Reason = telemetry.Uncertain, why
	return r
}

func timed(r telemetry.Reading, us int64) telemetry.Reading {
	r.Time = us
	return r
}

const head = `{"gateway":"press-shop","device":"press-1","group":"fast","epoch":"6f1c","seq":1234,"ts":1766480000123`

var deep = func() telemetry.Value {
	v := telemetry.Array(nil)
	for range 40 {
		v = telemetry.Array([]telemetry.Value{v})
	}
	return v
}()

// messages pairs readings of the tags a, b, c with everything that follows head in their message.
var messages = []struct {
	name     string
	readings []telemetry.Reading
	want     string
}{
	{"of the specification", []telemetry.Reading{
		reading(0, telemetry.Float32(21.5)), reading(1, telemetry.Bool(true)), telemetry.BadReading(2, at, "exception 2: illegal data address"),
	}, `,"values":{"a":21.5,"b":true},"bad":{"c":"exception 2: illegal data address"}}`},
	{"no readings", nil, `,"values":{},"bad":{}}`},
	{"all bad", []telemetry.Reading{telemetry.BadReading(0, at, "timeout"), telemetry.BadReading(1, at, "")},
		`,"values":{},"bad":{"a":"timeout","b":"bad"}}`},
	{"suppressed tags are absent", []telemetry.Reading{reading(1, telemetry.Bool(false))}, `,"values":{"b":false},"bad":{}}`},
	{"integers", []telemetry.Reading{reading(0, telemetry.Uint(math.MaxUint64)), reading(1, telemetry.Int(math.MinInt64)), reading(2, telemetry.Int(-1))},
		`,"values":{"a":18446744073709551615,"b":-9223372036854775808,"c":-1},"bad":{}}`},
	{"float32 prints as float32", []telemetry.Reading{reading(0, telemetry.Float32(0.1)), reading(1, telemetry.Float32(16777216)), reading(2, telemetry.Float32(math.MaxFloat32))},
		`,"values":{"a":0.1,"b":16777216,"c":3.4028235e+38},"bad":{}}`},
	{"float64", []telemetry.Reading{reading(0, telemetry.Float64(0.1)), reading(1, telemetry.Float64(math.Copysign(0, -1))), reading(2, telemetry.Float64(5e-324))},
		`,"values":{"a":0.1,"b":-0,"c":5e-324},"bad":{}}`},
	{"what JSON has no number for", []telemetry.Reading{
		reading(0, telemetry.Float32(float32(math.NaN()))), reading(1, telemetry.Float64(math.Inf(1))), reading(2, telemetry.Float32(float32(math.Inf(-1)))),
	}, `,"values":{},"bad":{"a":"not a number","b":"+infinity","c":"-infinity"}}`},
	{"texts", []telemetry.Reading{reading(0, telemetry.String("a\"b\\c\n\x01é")), reading(1, telemetry.String("\xff<&>\xe2\x80\xa8")), reading(2, telemetry.String(""))},
		`,"values":{"a":"a\"b\\c\n\u0001é","b":"` + "\uFFFD<&>\u2028" + `","c":""},"bad":{}}`},
	{"times", []telemetry.Reading{
		reading(0, telemetry.Time(time.Date(2026, 11, 23, 10, 0, 0, 123456700, time.UTC))), reading(1, telemetry.Time(time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC))),
		reading(2, telemetry.Time(time.Unix(0, 0))),
	}, `,"values":{"a":"2026-11-23T10:00:00.1234567Z","c":"1970-01-01T00:00:00Z"},"bad":{"b":"date-time outside the years 0000 to 9999"}}`},
	{"arrays", []telemetry.Reading{
		reading(0, telemetry.Array([]telemetry.Value{telemetry.Int(1), telemetry.Float64(math.NaN()), telemetry.String("x"),
			telemetry.Array([]telemetry.Value{telemetry.Bool(true), telemetry.Array(nil)})})),
		reading(1, telemetry.Value{Kind: telemetry.KindArray, Text: "\x06\x7fabc"}),
		reading(2, deep),
	}, `,"values":{"a":[1,null,"x",[true,[]]]},"bad":{"b":"damaged array","c":"array nested too deeply"}}`},
	{"no value and a reason", []telemetry.Reading{uncertain(reading(0, telemetry.Value{}), "sensor drifts")}, `,"values":{},"bad":{"a":"sensor drifts"}}`},
	{"uncertain keeps its value", []telemetry.Reading{
		uncertain(reading(0, telemetry.Int(7)), "sensor drifts"), uncertain(reading(1, telemetry.Value{}), ""), uncertain(reading(2, telemetry.Int(7)), ""),
	}, `,"values":{"a":7,"c":7},"bad":{"b":"no value"},"uncertain":{"a":"sensor drifts","c":"uncertain"}}`},
	{"uncertain without a value is bad alone", []telemetry.Reading{uncertain(reading(0, telemetry.Float64(math.NaN())), "stale")},
		`,"values":{},"bad":{"a":"not a number"}}`},
	{"source times that differ by a millisecond", []telemetry.Reading{
		timed(reading(0, telemetry.Int(1)), at+999), timed(reading(1, telemetry.Int(2)), at+1000), timed(telemetry.BadReading(2, at, "x"), at-1000),
	}, `,"values":{"a":1,"b":2},"bad":{"c":"x"},"times":{"b":1766480000124,"c":1766480000122}}`},
	{"source times within a millisecond", []telemetry.Reading{
		timed(reading(0, telemetry.Int(1)), at+999), timed(reading(1, telemetry.Int(2)), at-999), timed(telemetry.BadReading(2, at, "x"), at-500),
	}, `,"values":{"a":1,"b":2},"bad":{"c":"x"}}`},
	{"a tag several times in one notification", []telemetry.Reading{
		timed(reading(0, telemetry.Int(1)), at-2000), timed(uncertain(reading(0, telemetry.Int(2)), "u"), at-1000), reading(0, telemetry.Int(3)),
		telemetry.BadReading(1, at, "gone"), reading(1, telemetry.Int(4)),
	}, `,"values":{"a":3,"b":4},"bad":{},"earlier":[{"tag":"a","ts":1766480000121,"value":1},{"tag":"a","ts":1766480000122,"value":2,"uncertain":"u"},{"tag":"b","ts":1766480000123,"bad":"gone"}]}`},
	{"tags out of order", []telemetry.Reading{reading(2, telemetry.Int(1)), reading(0, telemetry.Int(2))}, `,"values":{"c":1,"a":2},"bad":{}}`},
}

func TestMessages(t *testing.T) {
	s := openStream(t, Options{Gateway: "press-shop"}, schemaOf("a", "b", "c"))
	contract := compileSchema(t)
	for _, m := range messages {
		t.Run(m.name, func(t *testing.T) {
			for _, historical := range []bool{false, true} {
				want := head + m.want
				if historical {
					want = head + `,"historical":true` + m.want
				}
				got, err := s.AppendRecord(nil, 1234, historical, &record.Record{Time: at, Readings: m.readings})
				if err != nil || string(got) != want {
					t.Errorf("got  %s (%v)\nwant %s", got, err, want)
				}
				holds(t, contract, got)
			}
		})
	}
}

func TestGap(t *testing.T) {
	s := openStream(t, Options{Gateway: "press-shop"}, schemaOf())
	got := s.AppendGap(nil, 1234, true, at, &format.Gap{From: at - 5e6, To: at - 1, FirstSeq: 7, LastSeq: 9, Count: 300, Cause: "full"})
	want := head + `,"historical":true,"values":{},"bad":{},"gap":{"from":1766479995123,"to":1766480000123,"count":300,"cause":"full","first_seq":7,"last_seq":9}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	holds(t, compileSchema(t), got)
	got = s.AppendGap(nil, 1234, false, at, &format.Gap{Unknown: true, LastSeq: 9, Cause: "damaged"})
	want = head + `,"values":{},"bad":{},"gap":{"count":0,"unknown":true,"cause":"damaged","first_seq":0,"last_seq":9}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	holds(t, compileSchema(t), got)
	got = s.AppendGap(nil, 1234, false, at, &format.Gap{To: at, Unknown: true, Cause: "outage"})
	want = head + `,"values":{},"bad":{},"gap":{"to":1766480000123,"count":0,"unknown":true,"cause":"outage","first_seq":0,"last_seq":0}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	holds(t, compileSchema(t), got)
	got = s.AppendGap(nil, 1234, false, at, &format.Gap{Count: 2, Unknown: true, FirstSeq: 9, LastSeq: 9, Cause: "lost", Reason: "a queue", Tags: []string{"a", `b"`}})
	want = head + `,"values":{},"bad":{},"gap":{"count":2,"unknown":true,"cause":"lost","reason":"a queue","tags":["a","b\""],"first_seq":9,"last_seq":9}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	holds(t, compileSchema(t), got)
}

func TestBigIntsAsText(t *testing.T) {
	s := openStream(t, Options{BigIntsAsText: true}, schemaOf("a", "b", "c", "d", "e"))
	const edge = 1 << 53
	got, _ := s.AppendRecord(nil, 1, false, &record.Record{Readings: []telemetry.Reading{
		{Tag: 0, Value: telemetry.Uint(edge)}, {Tag: 1, Value: telemetry.Uint(edge + 1)},
		{Tag: 2, Value: telemetry.Int(-edge)}, {Tag: 3, Value: telemetry.Int(-edge - 1)},
		{Tag: 4, Value: telemetry.Array([]telemetry.Value{telemetry.Int(math.MaxInt64)})},
	}})
	want := `"values":{"a":9007199254740992,"b":"9007199254740993","c":-9007199254740992,"d":"-9007199254740993","e":["9223372036854775807"]}`
	if !bytes.Contains(got, []byte(want)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestForeignTag(t *testing.T) {
	s := openStream(t, Options{}, schemaOf("a"))
	dst := []byte("before")
	got, err := s.AppendRecord(dst, 1, false, &record.Record{Readings: []telemetry.Reading{reading(1, telemetry.Int(1))}})
	if err == nil || string(got) != "before" {
		t.Errorf("got %q, %v; want the buffer unchanged and an error", got, err)
	}
}

func TestNamesAreQuoted(t *testing.T) {
	s := openStream(t, Options{Gateway: `a"b`}, &record.Schema{Device: "d\n", Group: "\xff", Tags: []record.Tag{{Name: `t"\`}}})
	got, _ := s.AppendRecord(nil, 1, false, &record.Record{Readings: []telemetry.Reading{{Value: telemetry.Int(1)}}})
	want := `{"gateway":"a\"b","device":"d\n","group":"` + "\uFFFD" + `","epoch":"6f1c","seq":1,"ts":0,"values":{"t\"\\":1},"bad":{}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTopic(t *testing.T) {
	schema := &record.Schema{Device: "hall/press+1#", Group: "fa\x00st"}
	for template, want := range map[string]string{
		"{device}/{device}":         "hall/press_1_/hall/press_1_",
		"$aws/rules/x/{gateway}":    "$aws/rules/x/gw",
		"{other}":                   "unknown placeholder",
		"a{":                        "unknown placeholder",
		"a/+":                       "wildcard",
		"a/#":                       "wildcard",
		strings.Repeat("x", 1025):   "use at most 1024",
		strings.Repeat("x", 1024):   strings.Repeat("x", 1024),
		"{group}" + "{group}/fixed": "fa_stfa_st/fixed",
	} {
		o := Options{Gateway: "gw", Topic: template}
		_, err := New(o)
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("template %q: error %q does not contain %q", template, err, want)
			}
			continue
		}
		if s, err := newStream(&o, schema, &scratch{}); err != nil || s.topic != want {
			t.Errorf("template %q: topic %q, want %q (%v)", template, s.topic, want, err)
		}
	}
	for template, want := range map[string]string{"telemetry/{gateway}/{device}/{group}": "telemetry/gw/d/_gap", "{group}/{device}": "_gap/d", "{device}": "d"} {
		if s, err := newStream(&Options{Gateway: "gw", Topic: template}, &record.Schema{Device: "d"}, &scratch{}); err != nil || s.topic != want {
			t.Errorf("a gap's topic of template %q is %q, want %q (%v)", template, s.topic, want, err)
		}
	}
	if _, err := newStream(&Options{Topic: strings.Repeat("{device}", 100)}, &record.Schema{Device: strings.Repeat("d", 1000)}, &scratch{}); err == nil {
		t.Error("a topic of 100,000 bytes is accepted")
	}
}

// TestEncoder: a record says whose it is by its own schema, its epoch by itself, and that its clock was not set.
func TestEncoder(t *testing.T) {
	f, err := New(Options{Gateway: "new-name", Topic: "t/{gateway}/{device}"})
	if err != nil {
		t.Fatal(err)
	}
	e := f.Open(nil, nil)
	of := func(gateway, epoch string, unset bool) string {
		schema := &record.Schema{Gateway: gateway, Device: "d", Group: "g", Tags: []record.Tag{{Name: "a"}}}
		rec := &record.Record{Time: at, ClockUnset: unset, Readings: []telemetry.Reading{reading(0, telemetry.Int(1))}}
		out, err := e.Encode(nil, []format.Record{{Epoch: epoch, Seq: 1, Schema: schema, Record: rec, Time: at}})
		if err != nil || len(out) != 1 || out[0].QoS != 1 || e.Topic(schema) != out[0].Topic {
			t.Fatalf("%+v, %v", out, err)
		}
		holds(t, compileSchema(t), out[0].Payload)
		return out[0].Topic + " " + string(out[0].Payload)
	}
	for _, c := range [][2]string{
		{of("old-name", "e1", false), `t/old-name/d {"gateway":"old-name","device":"d","group":"g","epoch":"e1","seq":1,"ts":1766480000123,"values":{"a":1},"bad":{}}`},
		{of("", "e2", true), `t/new-name/d {"gateway":"new-name","device":"d","group":"g","epoch":"e2","seq":1,"ts":1766480000123,"clock":"not set","values":{"a":1},"bad":{}}`},
	} {
		if c[0] != c[1] {
			t.Errorf("got  %s\nwant %s", c[0], c[1])
		}
	}
	if e.Batch() != 1 || len(e.Hello(nil)) != 0 || f.Will() != nil || len(f.Subscriptions()) != 0 {
		t.Error("json has births, a will, or a batch")
	}
}

func TestRecordDoesNotAllocate(t *testing.T) {
	s := openStream(t, Options{}, schemaOf("a", "b", "c"))
	var dst []byte
	for _, m := range messages {
		if m.name == "arrays" {
			continue // their elements come through a closure: a few allocations an array
		}
		rec := &record.Record{Time: at, Readings: m.readings}
		dst, _ = s.AppendRecord(dst[:0], 1, true, rec)
		if n := testing.AllocsPerRun(100, func() { dst, _ = s.AppendRecord(dst[:0], 1, true, rec) }); n != 0 {
			t.Errorf("%s: %v allocations", m.name, n)
		}
	}
}

func compileSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("message.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("message.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("message.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func holds(t testing.TB, contract *jsonschema.Schema, message []byte) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(message))
	if err != nil {
		t.Fatalf("not JSON: %v\n%s", err, message)
	}
	if err := contract.Validate(doc); err != nil {
		t.Errorf("the schema refuses %s: %v", message, err)
	}
}

// TestSchemaRefuses shows that the contract can fail at all.
func TestSchemaRefuses(t *testing.T) {
	contract := compileSchema(t)
	for _, bad := range []string{
		`{}`, `[]`,
		head + `,"values":{}}`,
		head + `,"values":{},"bad":{"a":""}}`,
		head + `,"values":{"a":null},"bad":{}}`,
		head + `,"values":{},"bad":{},"historical":false}`,
		head + `,"values":{},"bad":{},"times":{}}`,
		head + `,"values":{},"bad":{},"more":1}`,
		head + `,"values":{},"bad":{},"earlier":[{"tag":"a","ts":1}]}`,
		head + `,"kind":"event","values":{},"bad":{}}`,
		head + `,"values":{},"bad":{},"events":[]}`,
		head + `,"kind":"event","values":{"a":1},"bad":{},"events":[]}`,
		head + `,"kind":"event","values":{},"bad":{},"events":[{"tag":"a","ts":1}]}`,
		head + `,"kind":"event","values":{},"bad":{},"events":[{"tag":"a","ts":1,"event":"{}"}]}`,
		head + `,"kind":"event","values":{},"bad":{},"events":[{"tag":"a","ts":1,"event":{},"bad":"x"}]}`,
		head + `,"kind":"event","values":{},"bad":{},"events":[{"tag":"a","ts":1,"event":{},"note":"x"}]}`,
		head + `,"values":{"a":1},"bad":{},"gap":{"from":1,"to":2,"count":3,"cause":"x","first_seq":1,"last_seq":1}}`,
	} {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(bad))
		if err != nil {
			t.Fatal(err)
		}
		if contract.Validate(doc) == nil {
			t.Errorf("the schema accepts %s", bad)
		}
	}
}
