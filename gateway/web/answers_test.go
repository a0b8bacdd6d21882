package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
	"millrace/gateway/values"
)

// strict compiles a schema for this version's answers: what it does not name may not be there.
func strict(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	r := request(Handler(showing(func() *Snapshot { return nil }), 0), "GET", "/api/v1/schema/"+name+".json")
	doc, err := jsonschema.UnmarshalJSON(r.Body)
	if err != nil {
		t.Fatalf("schema %s: %v", name, err)
	}
	closeObjects(doc)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(name, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeObjects(doc any) {
	switch v := doc.(type) {
	case map[string]any:
		if v["type"] == "object" {
			v["additionalProperties"] = false
		}
		for _, e := range v {
			closeObjects(e)
		}
	case []any:
		for _, e := range v {
			closeObjects(e)
		}
	}
}

// plantTable has values of every kind, qualities and one tag that was never read.
func plantTable() (*values.Table, *values.Group) {
	t := values.New()
	s := &record.Schema{Device: "press-1", Group: "fast"}
	for _, name := range []string{"speed", "count", "name", "on", "list", "never", "broken", "odd", "when"} {
		s.Tags = append(s.Tags, record.Tag{Name: name, More: &record.Details{Unit: strings.Repeat("u", len(s.Tags)%2)}})
	}
	s.Tags[0].More.Range = telemetry.Range{High: 300}
	g := t.Group(s, 500*time.Millisecond)
	at := time.Now().UnixMicro()
	g.Put(at, []telemetry.Reading{
		{Tag: 0, Time: at, Value: telemetry.Float64(21.5)}, {Tag: 1, Time: at - 5_000_000, Value: telemetry.Uint(math.MaxUint64)},
		{Tag: 2, Time: at, Value: telemetry.String("a \"b\"\n\xff")}, {Tag: 3, Time: at, Value: telemetry.Bool(true)},
		{Tag: 4, Time: at, Value: telemetry.Array([]telemetry.Value{telemetry.Int(-1), telemetry.Int(2)})},
		{Tag: 6, Time: at, Quality: telemetry.Bad, Reason: "timeout"},
		{Tag: 7, Time: at, Value: telemetry.Float64(math.NaN()), Quality: telemetry.Uncertain, Reason: "sensor"},
		{Tag: 8, Time: at, Value: telemetry.Time(time.UnixMicro(at))},
	})
	t.Group(&record.Schema{Device: "press-2", Group: "fast", Tags: []record.Tag{{Name: "speed"}}}, time.Second)
	return t, g
}

// TestAnswersFollowTheirSchemas validates real answers, in good times and in bad.
func TestAnswersFollowTheirSchemas(t *testing.T) {
	f := newFake(t, 10)
	f.reopen(t)
	f.table, _ = plantTable()
	f.snap.Absent = []Absent{{Name: "old", Records: 1, Readings: 2}}
	f.snap.Destinations[0].Breakers = []Breaker{{Device: "press-1", Topic: "a", State: "open", Since: noon, Held: 3, NextTry: noon, Reason: "not authorised"}}
	full := serve(t, f)
	empty := newFake(t, 0)
	empty.snap = &Snapshot{Devices: []Device{{Name: "press-1", Groups: []Group{}, Accounts: []Account{}}}} // its values come with the end of a reload
	bare := serve(t, empty)
	for _, c := range []struct{ schema, method, path string }{
		{"snapshot", "GET", "snapshot"}, {"values", "GET", "values"}, {"values", "GET", "values?bad=1"}, {"values", "GET", "values?tag=speed&device=press-1"},
		{"store", "GET", "store"}, {"change", "POST", "reload"}, {"written", "POST", "write?device=press-1&tag=speed&value=3"},
	} {
		schema := strict(t, c.schema)
		for name, dir := range map[string]string{"full": full, "bare": bare} {
			code, text := over(t, dir, c.method, "/api/v1/"+c.path)
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
			if err == nil {
				err = schema.Validate(doc)
			}
			if code != 200 || err != nil {
				t.Errorf("%s, %s: %d: %v\n%.500s", name, c.path, code, err, text)
			}
		}
	}
}

// TestSchemasAreNotEmpty: the schemas refuse what they should, so the test above means something.
func TestSchemasAreNotEmpty(t *testing.T) {
	for name, bad := range map[string]string{"snapshot": `{}`, "values": `[{"device":"a"}]`, "store": `{"Running":1}`, "change": `[]`, "written": `{"device":"a","tag":"b","value":1,"seconds":1}`} {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(bad))
		if err != nil {
			t.Fatal(err)
		}
		if strict(t, name).Validate(doc) == nil {
			t.Errorf("%s takes %s", name, bad)
		}
	}
}

func TestValuesThroughTheSocket(t *testing.T) {
	f := &fake{snap: &Snapshot{}}
	f.table, _ = plantTable()
	dir := serve(t, f)
	c := client(t, dir)
	tell := func(device, tag string, bad bool) string {
		list, err := c.Values(t.Context(), device, tag, bad)
		if err != nil {
			t.Fatal(err)
		}
		var text []string
		for _, v := range list {
			text = append(text, fmt.Sprintf("%s/%s %v%s %s%s", v.Device, v.Tag, v.Value, v.Unit, v.Quality, v.Reason))
		}
		return strings.Join(text, "; ")
	}
	for got, want := range map[string]string{
		tell("press-1", "speed", false): "press-1/speed 21.5 good",
		tell("", "speed", false):        "press-1/speed 21.5 good; press-2/speed <nil> ",
		tell("press-1", "count", false): "press-1/count 18446744073709551615u good",
		tell("press-1", "list", false):  "press-1/list [-1 2] good",
		tell("press-1", "on", false):    "press-1/on trueu good",
		tell("", "", true):              "press-1/broken <nil> badtimeout; press-1/odd NaNu uncertainsensor",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	list, err := c.Values(t.Context(), "press-1", "", false)
	if err != nil || len(list) != 9 {
		t.Fatalf("%d values, %v", len(list), err)
	}
	if speed, count := list[0], list[1]; speed.Source != 0 || speed.Every != 0.5 || speed.At == 0 || count.Source != (count.At-5000) {
		t.Errorf("times: %+v, %+v", speed, count)
	}
	if list[0].Range != (Range{High: 300}) || list[1].Range != (Range{}) {
		t.Errorf("ranges: %+v, %+v", list[0], list[1])
	}
	_, text := over(t, dir, "GET", "/api/v1/values?device=press-1")
	if n := bytes.Count(text, []byte(`"range":`)); n != 1 || !bytes.Contains(text, []byte(`"range":{"low":0,"high":300}`)) {
		t.Errorf("%d ranges: %s", n, text)
	}
}

// TestWatchThroughTheSocket: a watcher gets what it wants to see and nothing else, until it has enough.
func TestWatchThroughTheSocket(t *testing.T) {
	f := &fake{snap: &Snapshot{}}
	var g *values.Group
	f.table, g = plantTable()
	c := client(t, serve(t, f))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go put(ctx, g) // again and again: when the watch begins is not known
	enough := errors.New("enough")
	var qualities []string
	n := 0
	watch := func(tag string, bad bool) error {
		n, qualities = 0, nil
		return c.Watch(ctx, "press-1", tag, bad, func(v *Value) error {
			if n++; v.Tag != "speed" && v.Tag != "broken" || tag != "" && v.Tag != tag {
				t.Errorf("%+v", v)
			}
			if qualities = append(qualities, v.Quality); n == 3 {
				return enough
			}
			return nil
		})
	}
	if err := watch("speed", false); !errors.Is(err, enough) || slices.Contains(qualities, "bad") {
		t.Errorf("speed: %v, %q", err, qualities)
	}
	if err := watch("", true); !errors.Is(err, enough) || slices.Contains(qualities, "good") {
		t.Errorf("bad ones: %v, %q", err, qualities)
	}
	cancel()
	if err := watch("", false); err == nil {
		t.Error("a watch after its end")
	}
}

func put(ctx context.Context, g *values.Group) {
	for n := int64(0); ctx.Err() == nil; n++ {
		at := time.Now().UnixMicro()
		g.Put(at, []telemetry.Reading{{Tag: 0, Time: at, Value: telemetry.Int(n)}, {Tag: 6, Time: at, Quality: telemetry.Bad, Reason: "timeout"}})
		time.Sleep(time.Millisecond)
	}
}

// TestWatchEndsWithTheGateway: the client is not left waiting.
func TestWatchEndsWithTheGateway(t *testing.T) {
	f := &fake{snap: &Snapshot{}}
	var g *values.Group
	f.table, g = plantTable()
	ctx, cancel := context.WithCancel(t.Context())
	dir := shortDir(t)
	l := &socket{path: filepath.Join(dir, socketName), bounds: Bounds{}, log: mute}
	if err := l.listen(ctx); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serveLocal(ctx, l, f, mute) }()
	go put(t.Context(), g)
	c := client(t, dir)
	watched := make(chan error, 1)
	go func() {
		watched <- c.Watch(t.Context(), "", "", false, func(*Value) error { cancel(); return nil })
	}()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-watched; !errors.Is(err, ErrStopped) {
		t.Errorf("watch: %v", err)
	}
}

// TestLossEnds: a loss between two pushes is told for ten minutes with when it was noticed, also where the clock was set back.
func TestLossEnds(t *testing.T) {
	now := time.Now()
	for ago, want := range map[time.Duration]uint64{0: 2, values.LostFor - time.Second: 2, values.LostFor: 0, -time.Hour: 0} {
		at := now.Add(-ago)
		v := valueOf(&values.Entry{Tag: &record.Tag{}, Lost: 2, LostAt: at.UnixMicro()}, now)
		if v.Lost != want || want > 0 != (v.LostAt == at.UnixMilli()) {
			t.Errorf("%v ago: %d lost at %d", ago, v.Lost, v.LostAt)
		}
	}
}
