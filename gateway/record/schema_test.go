package record

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"millrace/drivers/telemetry"
)

var schemas = []*Schema{
	{Tags: []Tag{}},
	{Device: "press-1", Group: "fast", Tags: []Tag{{Name: "temperature", More: &Details{Unit: "°C", Type: "float32"}}, {Name: "läuft"}}},
	{Gateway: "gw", Device: "press-1", Group: "fast", Labels: []telemetry.Label{{Name: "line", Value: "4"}, {Name: "site", Value: ""}}, Tags: []Tag{
		{Name: "t", More: &Details{"°C", "real", "oil", []telemetry.Label{{Name: "asset", Value: "7"}}, telemetry.Range{}}},
		{Name: "n"}}, Data: []telemetry.DataType{telemetry.Float32Type, 200}}, // a data type of a later version
	{Device: strings.Repeat("x", maxName), Tags: slices.Repeat([]Tag{{Name: "a"}}, 300)},
	{Gateway: "gw", Device: "d", Group: "g", Tags: []Tag{{Name: "t", More: &Details{Unit: "mm", Range: telemetry.Range{Low: -0.5, High: 2000}}}, {Name: "n"}}},
	{Device: "d", Group: "g", Tags: []Tag{{Name: "e"}, {Name: "n"}}, Data: []telemetry.DataType{telemetry.EventType, telemetry.AnyType}},
}

func TestSchemaRoundTrip(t *testing.T) {
	for _, want := range schemas {
		got, err := ParseSchema(AppendSchema([]byte("before"), want)[6:])
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

const schemaGolden1 = "0107" + "70726573732d31" + "04" + "66617374" + "02" +
	"0b" + "74656d7065726174757265" + "03" + "c2b043" + "07" + "666c6f61743332" +
	"06" + "6cc3a4756674" + "00" + "00"

const schemaGolden2 = "02" + "026777" + "0770726573732d31" + "0466617374" + "02" + "046c696e65" + "0134" + "0473697465" + "00" + "02" +
	"0174" + "03c2b043" + "047265616c" + "0a" + "036f696c" + "01" + "056173736574" + "0137" +
	"016e" + "00" + "00" + "c8" + "00" + "00"

const schemaGolden3 = "03" + "026777" + "0164" + "0167" + "00" + "02" +
	"0174" + "026d6d" + "00" + "00" + "00" + "00" + "01" + "000000000000e0bf" + "0000000000409f40" +
	"016e" + "00" + "00" + "00" + "00" + "00" + "00"

// a tag of events is told by its data type: what older binaries do not know, and take for not known
const schemaGoldenEvents = "02" + "00" + "0164" + "0167" + "00" + "02" +
	"0165" + "00" + "00" + "0f" + "00" + "00" +
	"016e" + "00" + "00" + "00" + "00" + "00"

// TestSchemaOlder pins what is read: segments in the field hold version 1.
func TestSchemaOlder(t *testing.T) {
	for stored, want := range map[string]*Schema{schemaGolden1: schemas[1], schemaGolden2: schemas[2], schemaGolden3: schemas[4], schemaGoldenEvents: schemas[5]} {
		b, err := hex.DecodeString(stored)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseSchema(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", stored, got, err, want)
		}
	}
}

// TestSchemaGolden pins what is written: version 3 with a range, else version 2.
func TestSchemaGolden(t *testing.T) {
	for i, want := range map[int]string{2: schemaGolden2, 4: schemaGolden3, 5: schemaGoldenEvents} {
		if got := hex.EncodeToString(AppendSchema(nil, schemas[i])); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// withRange is a schema of version 3 whose one tag has these bytes for a range.
func withRange(low, high float64) []byte {
	b := AppendSchema(nil, &Schema{Tags: []Tag{{More: &Details{Range: telemetry.Range{Low: 1, High: 2}}}}})
	b = binary.LittleEndian.AppendUint64(b[:len(b)-16], math.Float64bits(low))
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(high))
}

func TestSchemaDamaged(t *testing.T) {
	older, err := hex.DecodeString(schemaGolden1)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{older, AppendSchema(nil, schemas[2]), AppendSchema(nil, schemas[4])} {
		for n := range b {
			if _, err := ParseSchema(b[:n]); !errors.Is(err, ErrSchema) {
				t.Errorf("the first %d bytes of %x: error %v", n, b, err)
			}
		}
	}
	for name, c := range map[string][]byte{
		"a byte more":          append(slices.Clone(older), 0),
		"a byte more than 2":   append(AppendSchema(nil, schemas[2]), 0),
		"1 read as 2":          append([]byte{2}, older[1:]...),
		"2 read as 3":          append([]byte{3}, AppendSchema(nil, schemas[2])[1:]...),
		"version 4":            append([]byte{4}, AppendSchema(nil, schemas[4])[1:]...),
		"a byte more than 3":   append(AppendSchema(nil, schemas[4]), 0),
		"an empty range":       withRange(2, 2),
		"a range to nowhere":   withRange(2, math.Inf(1)),
		"a range of nothing":   withRange(math.NaN(), 2),
		"too many labels":      AppendSchema(nil, &Schema{Labels: make([]telemetry.Label, MaxLabels+1)}),
		"more labels than":     {2, 0, 0, 0, 3, 0, 0},
		"too many of a tag":    AppendSchema(nil, &Schema{Tags: []Tag{{More: &Details{Labels: make([]telemetry.Label, MaxLabels+1)}}}}),
		"text of a label":      AppendSchema(nil, &Schema{Labels: []telemetry.Label{{Value: strings.Repeat("x", maxName+1)}}}),
		"too many tags":        {1, 0, 0, 0x81, 0x80, 0x08},
		"more tags than bytes": {1, 0, 0, 2, 0, 0, 0},
		"name too long":        AppendSchema(nil, &Schema{Device: strings.Repeat("x", maxName+1)}),
		"count over 64 bits":   {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
	} {
		if _, err := ParseSchema(c); !errors.Is(err, ErrSchema) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := ParseSchema(AppendSchema(nil, &Schema{Tags: make([]Tag, MaxTags+1)})); !errors.Is(err, ErrSchema) {
		t.Errorf("%d tags: error %v", MaxTags+1, err)
	}
}

func FuzzParseSchema(f *testing.F) {
	if older, err := hex.DecodeString(schemaGolden1); err == nil {
		f.Add(older)
	}
	for _, s := range schemas {
		f.Add(AppendSchema(nil, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSchema(b)
		if err != nil {
			return
		}
		again, err := ParseSchema(AppendSchema(nil, s))
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%x: %+v came back as %+v, %v", b, s, again, err)
		}
	})
}
