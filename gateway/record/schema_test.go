package record

import (
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var schemas = []*Schema{
	{Tags: []Tag{}},
	{Device: "press-1", Group: "fast", Tags: []Tag{{Name: "temperature", Unit: "°C", Type: "float32"}, {Name: "läuft"}}},
	{Device: strings.Repeat("x", maxName), Tags: slices.Repeat([]Tag{{Name: "a"}}, 300)},
}

func TestSchemaRoundTrip(t *testing.T) {
	for _, want := range schemas {
		got, err := ParseSchema(AppendSchema([]byte("before"), want)[6:])
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

// TestSchemaGolden pins version 1: segments in the field hold it.
func TestSchemaGolden(t *testing.T) {
	const want = "0107" + "70726573732d31" + "04" + "66617374" + "02" +
		"0b" + "74656d7065726174757265" + "03" + "c2b043" + "07" + "666c6f61743332" +
		"06" + "6cc3a4756674" + "00" + "00"
	if got := hex.EncodeToString(AppendSchema(nil, schemas[1])); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSchemaDamaged(t *testing.T) {
	b := AppendSchema(nil, schemas[1])
	for n := range b {
		if _, err := ParseSchema(b[:n]); !errors.Is(err, ErrSchema) {
			t.Errorf("the first %d bytes: error %v", n, err)
		}
	}
	for name, c := range map[string][]byte{
		"a byte more":          append(slices.Clone(b), 0),
		"version 2":            append([]byte{2}, b[1:]...),
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
