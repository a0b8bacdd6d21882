package pipeline

import (
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

func (s *sink) types(n int) []telemetry.DataType {
	return s.schemas[n].Data
}

// TestTypesFromConfig: what the schema knows is kept, one more comes with the first value, and the caller's is left alone.
func TestTypesFromConfig(t *testing.T) {
	s := &sink{}
	tags := []telemetry.Tag{{Name: "a"}, {Name: "b", Scale: 0.1}, {Name: "c"}, {Name: "d", Offset: 1}}
	want := []telemetry.DataType{telemetry.Int16Type, telemetry.Float64Type, telemetry.Float32Type, telemetry.AnyType}
	before := schemaOf(tags)
	before.Data = slices.Clone(want)
	g := New(Options{Schema: before, Tags: tags, Sink: s})
	if err := g.Take(poll, []telemetry.Reading{telemetry.BadReading(0, 0, "no answer")}); err != nil {
		t.Fatal(err)
	}
	if err := g.Take(poll, []telemetry.Reading{good(3, 0, telemetry.Uint(1))}); err != nil {
		t.Fatal(err)
	}
	if got := s.types(0); !slices.Equal(got, want) {
		t.Errorf("at first %v, want %v", got, want)
	}
	want[3] = telemetry.Float64Type
	if got := s.types(1); !slices.Equal(got, want) {
		t.Errorf("when the last tag has answered %v, want %v", got, want)
	}
	if &s.schemas[1].Tags[0] != &before.Tags[0] {
		t.Error("the tags are in memory twice")
	}
	if before.DataType(3).Known() || !reflect.DeepEqual(before.Tags, schemaOf(tags).Tags) {
		t.Errorf("the caller's schema was changed: %+v", before)
	}
}

// TestTypesBeforeTheFirstRecord: a group that answers whole at once has one schema, with all types.
func TestTypesBeforeTheFirstRecord(t *testing.T) {
	s := &sink{}
	g := newGroup(make([]telemetry.Tag, 3), nil, s)
	for range 3 {
		rs := []telemetry.Reading{good(0, 0, telemetry.Bool(true)), good(1, 0, telemetry.Uint(3)), good(2, 0, telemetry.String("x"))}
		if err := g.Take(poll, rs); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := s.types(0), []telemetry.DataType{telemetry.BoolType, telemetry.Uint64Type, telemetry.StringType}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if s.schemas[0] != s.schemas[1] || s.schemas[1] != s.schemas[2] {
		t.Error("a further schema without anything new")
	}
}

// TestTypesLearntLate: a tag that answers at last has its type with that very record, where the last schema is old enough.
func TestTypesLearntLate(t *testing.T) {
	s := &sink{}
	g := newGroup(make([]telemetry.Tag, 2), nil, s)
	for n := range 1000 {
		rs := []telemetry.Reading{good(0, 0, telemetry.Int(1)), telemetry.BadReading(1, 0, "no answer")}
		if n == 999 {
			rs[1] = good(1, 0, telemetry.Float32(1))
		}
		if err := g.Take(poll, rs); err != nil {
			t.Fatal(err)
		}
	}
	if s.types(998)[1].Known() || s.types(999)[1] != telemetry.Float32Type {
		t.Errorf("types %v, then %v", s.types(998), s.types(999))
	}
}

// TestTypesMakeFewSchemas: with one more tag answering at each poll the schemas are logarithmic in the polls, each is
// a step forward, and in the end every type is known.
func TestTypesMakeFewSchemas(t *testing.T) {
	const tags = 1000
	s := &sink{}
	g := newGroup(make([]telemetry.Tag, tags), nil, s)
	for n := range 2 * tags {
		if err := g.Take(poll.Add(time.Duration(n)*time.Second), []telemetry.Reading{good(n%tags, 0, telemetry.Int(1))}); err != nil {
			t.Fatal(err)
		}
	}
	versions := slices.Compact(slices.Clone(s.schemas))
	if len(versions) > 12 { // 1 + log2(2000)
		t.Errorf("%d schemas for %d polls", len(versions), 2*tags)
	}
	if slices.Contains(s.types(len(s.schemas)-1), telemetry.AnyType) {
		t.Errorf("not all types are known after %d polls", 2*tags)
	}
}

// TestDescribe: what the device says fills in what the config does not, and the schemas before stay as they were.
func TestDescribe(t *testing.T) {
	s := &sink{}
	before := schemaOf([]telemetry.Tag{{Name: "a"}, {Name: "b", Unit: "bar"}, {Name: "c"}})
	labels := []telemetry.Label{{Name: "l", Value: "1"}}
	before.Describe(1, record.Details{Unit: "bar", Description: "as configured"})
	before.Describe(2, record.Details{Labels: labels})
	g := New(Options{Schema: before, Tags: make([]telemetry.Tag, 3), Sink: s})
	take := func() {
		t.Helper()
		if err := g.Take(poll, []telemetry.Reading{good(0, 0, telemetry.Int(1))}); err != nil {
			t.Fatal(err)
		}
	}
	take()
	said := telemetry.Details{Unit: "mm", Description: "of the tank"}
	after := g.Describe([]telemetry.Details{said, said, said})
	take()
	if s.schemas[0].Tags[0].More != nil || s.schemas[1] != after || after.DataType(0) != telemetry.Int64Type {
		t.Errorf("schemas %+v, then %+v", s.schemas[0], s.schemas[1])
	}
	want := []record.Tag{{Name: "a", More: &record.Details{Unit: "mm", Description: "of the tank"}},
		{Name: "b", More: &record.Details{Unit: "bar", Description: "as configured"}},
		{Name: "c", More: &record.Details{Unit: "mm", Description: "of the tank", Labels: labels}}}
	if !reflect.DeepEqual(after.Tags, want) || before.Tags[2].More.Description != "" {
		t.Errorf("tags %+v", after.Tags)
	}
}

// TestDescribeRange: a range is of what is reported: scaled as the values are, and none where that leaves none.
func TestDescribeRange(t *testing.T) {
	said := telemetry.Range{Low: 0, High: 300}
	all := []struct {
		name  string
		tag   telemetry.Tag
		kind  AggregateKind
		given telemetry.Range
		want  telemetry.Range
	}{
		{name: "as it is", given: said, want: said},
		{name: "none"},
		{name: "scaled", tag: telemetry.Tag{Scale: 0.1, Offset: -5}, given: said, want: telemetry.Range{Low: -5, High: 25}},
		{name: "turned round", tag: telemetry.Tag{Scale: -2}, given: said, want: telemetry.Range{Low: -600, High: 0}},
		{name: "none, scaled", tag: telemetry.Tag{Scale: 2, Offset: 7}},
		{name: "too large", tag: telemetry.Tag{Scale: 1e300}, given: telemetry.Range{Low: 0, High: 1e300}},
		{name: "too small", tag: telemetry.Tag{Offset: 1e300}, given: said},
		{name: "no number", tag: telemetry.Tag{}, given: telemetry.Range{Low: math.NaN(), High: 1}},
		{name: "empty", given: telemetry.Range{Low: 1, High: 1}},
		{name: "mean", kind: Mean, given: said, want: said},
		{name: "rate", kind: Rate, given: said},
	}
	o := Options{Sink: &sink{}, Aggregates: map[int]Aggregate{}}
	var details []telemetry.Details
	for i, c := range all {
		o.Tags, details = append(o.Tags, c.tag), append(details, telemetry.Details{Range: c.given})
		if c.kind != "" {
			o.Aggregates[i] = Aggregate{Kind: c.kind, Over: time.Minute}
		}
	}
	o.Schema = schemaOf(o.Tags)
	s := New(o).Describe(details)
	for i, c := range all {
		if got := s.Tags[i].Details().Range; got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
