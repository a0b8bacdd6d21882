package jsonmsg

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"unicode/utf8"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// FuzzRecord holds every record that decodes against three promises: its message is valid JSON, each of its
// tags is in values or in bad and never in both, and values read back exactly. In one of events each reading is in events or in bad.
func FuzzRecord(f *testing.F) {
	for _, m := range messages {
		f.Add(record.Append(nil, &record.Record{Time: at, Readings: m.readings}), false)
		f.Add(record.Append(nil, &record.Record{Time: -at, Readings: m.readings}), true)
	}
	schema := schemaOf()
	for i := range 64 { // those from 32 on are of events
		schema.Tags = append(schema.Tags, record.Tag{Name: "t" + strconv.Itoa(i)})
		schema.Data = append(schema.Data, telemetry.EventType*telemetry.DataType(i/32))
	}
	for _, m := range eventMessages {
		moved := slices.Clone(m.readings)
		for i := range moved {
			moved[i].Tag += 32
		}
		f.Add(record.Append(nil, &record.Record{Time: at, Readings: moved}), false)
	}
	contract := compileSchema(f)
	f.Fuzz(func(t *testing.T, src []byte, bigText bool) {
		var rec record.Record
		if record.Decode(src, &rec) != nil {
			return
		}
		s := openStream(t, Options{BigIntsAsText: bigText}, schema)
		got, err := s.AppendRecord(nil, 1, false, &rec)
		if err != nil {
			return
		}
		if !json.Valid(got) || !utf8.Valid(got) {
			t.Fatalf("not JSON: %s", got)
		}
		holds(t, contract, got)
		var m struct {
			Kind   string
			Values map[string]any
			Bad    map[string]string
			Events []any
		}
		d := json.NewDecoder(bytes.NewReader(got))
		d.UseNumber()
		if err := d.Decode(&m); err != nil {
			t.Fatal(err)
		}
		if m.Kind == "event" {
			if len(m.Events)+len(m.Bad) != len(rec.Readings) {
				t.Fatalf("%d readings, but %d events and %d bad: %s", len(rec.Readings), len(m.Events), len(m.Bad), got)
			}
			return
		}
		newest := map[string]*telemetry.Reading{}
		for i := range rec.Readings {
			newest[schema.Tags[rec.Readings[i].Tag].Name] = &rec.Readings[i]
		}
		if len(m.Values)+len(m.Bad) != len(newest) {
			t.Fatalf("%d tags, but %d values and %d bad: %s", len(newest), len(m.Values), len(m.Bad), got)
		}
		for name, rd := range newest {
			v, good := m.Values[name]
			if _, bad := m.Bad[name]; bad == good {
				t.Fatalf("tag %s: in values %v, in bad %v: %s", name, good, bad, got)
			}
			if good && !same(v, rd.Value) {
				t.Fatalf("tag %s: %v is not %+v", name, v, rd.Value)
			}
		}
	})
}

func same(got any, v telemetry.Value) bool {
	text, _ := got.(string)
	if n, ok := got.(json.Number); ok {
		text = string(n)
	}
	switch v.Kind {
	case telemetry.KindBool:
		return got == (v.Bits != 0)
	case telemetry.KindInt:
		return text == strconv.FormatInt(int64(v.Bits), 10)
	case telemetry.KindUint:
		return text == strconv.FormatUint(v.Bits, 10)
	case telemetry.KindFloat32:
		f, err := strconv.ParseFloat(text, 32)
		return err == nil && math.Float32bits(float32(f)) == uint32(v.Bits)
	case telemetry.KindFloat64:
		f, err := strconv.ParseFloat(text, 64)
		return err == nil && math.Float64bits(f) == v.Bits
	case telemetry.KindString:
		return text == string([]rune(v.Text))
	}
	return true
}

// FuzzFloat holds the fast path of floats against encoding/json, byte by byte.
func FuzzFloat(f *testing.F) {
	for _, x := range []float64{0, 1, -1, 0.001, 999.999, 1e6, 123456.789, 1e15, 999999999999.999, 1e21, 1e-7, math.MaxFloat64} {
		f.Add(math.Float64bits(x))
	}
	f.Fuzz(func(t *testing.T, b uint64) { checkFloats(t, b) })
}

func checkFloats(t *testing.T, b uint64) {
	f64 := math.Float64frombits(b)
	if want, err := json.Marshal(f64); err == nil {
		if got, why := appendFloat(nil, f64, 64); why != "" || !sameFloat(got, want) {
			t.Fatalf("float64 %x: got %s, want %s", b, got, want)
		}
	}
	f32 := math.Float32frombits(uint32(b))
	if want, err := json.Marshal(f32); err == nil {
		if got, why := appendFloat(nil, float64(f32), 32); why != "" || !sameFloat(got, want) {
			t.Fatalf("float32 %x: got %s, want %s", b, got, want)
		}
	}
}

// sameFloat forgives that encoding/json writes e-7 where strconv writes e-07.
func sameFloat(got, want []byte) bool {
	a, err1 := strconv.ParseFloat(string(got), 64)
	b, err2 := strconv.ParseFloat(string(want), 64)
	return err1 == nil && err2 == nil && a == b && (bytes.Equal(got, want) || bytes.ContainsRune(want, 'e'))
}

func TestFloatsLikeEncodingJSON(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		checkFloats(t, rng.Uint64())
		for _, scale := range []float64{1, 10, 100, 1000, 10000} {
			x := float64(rng.Int64N(1<<rng.IntN(50)+1)-rng.Int64N(1<<rng.IntN(50)+1)) / scale
			checkFloats(t, math.Float64bits(x))
			checkFloats(t, uint64(math.Float32bits(float32(x))))
		}
	}
	for n := range 1 << 16 {
		checkFloats(t, uint64(math.Float32bits(float32(n)/1000)))
	}
}
