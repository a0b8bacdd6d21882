package opcua

import (
	"encoding/hex"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gopcua/opcua/ua"

	"millrace/gateway/telemetry"
)

// FuzzReading holds that whatever a server sends becomes a well-formed reading, of every type. The
// library's own flaws are known (README, Limits) and passed over: its panics, and arrays of several
// dimensions, for which it allocates whatever number of dimensions the bytes say.
func FuzzReading(f *testing.F) {
	files, err := filepath.Glob("testcases/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("%d seeds: %v", len(files), err)
	}
	for _, file := range files {
		c := parseCase(f, file)
		raw, err := hex.DecodeString(strings.ReplaceAll(c["bytes"], " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	words := strings.Fields(typeWords)
	d := driver{texts: statusTexts{}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		dv := decodeValue(raw)
		if dv == nil {
			return
		}
		for _, word := range append(words, "") {
			want, _ := parseType(word)
			r := d.reading(3, dv, want, 1)
			switch {
			case r.Tag != 3:
				t.Fatalf("tag %d", r.Tag)
			case r.Quality == telemetry.Bad && (r.Reason == "" || r.Value != telemetry.Value{}):
				t.Fatalf("type %q: bad with value %+v, reason %q", word, r.Value, r.Reason)
			case r.Quality == telemetry.Good && r.Reason != "":
				t.Fatalf("type %q: good with reason %q", word, r.Reason)
			case r.Quality != telemetry.Bad && r.Value.Kind == telemetry.KindNone:
				t.Fatalf("type %q: %v without a value", word, r.Quality)
			case r.Value.Kind == telemetry.KindArray && !r.Value.Elements(func(telemetry.Value) bool { return true }):
				t.Fatalf("type %q: damaged array", word)
			case word != "" && r.Value.Kind != telemetry.KindNone && r.Value.Kind != telemetry.KindArray && r.Value.Kind != want.kind:
				t.Fatalf("type %q: value of kind %d", word, r.Value.Kind)
			}
		}
	})
}

// decodeValue is nil when the library refuses the bytes or panics, or might take all memory.
func decodeValue(raw []byte) (dv *ua.DataValue) {
	defer func() {
		if recover() != nil {
			dv = nil
		}
	}()
	if slices.ContainsFunc(raw, func(b byte) bool {
		return b&(ua.VariantArrayValues|ua.VariantArrayDimensions) == ua.VariantArrayValues|ua.VariantArrayDimensions && b&0x3f <= 25
	}) {
		return nil
	}
	dv = new(ua.DataValue)
	if _, err := dv.Decode(raw); err != nil {
		return nil
	}
	return dv
}
