package opcua

import (
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers/telemetry"
)

// TestDecode runs testcases/*.txt: the bytes of a DataValue as they stand on the wire (OPC 10000-6,
// 5.2.2.17), made without the library, and the reading that they are.
func TestDecode(t *testing.T) {
	files, err := filepath.Glob("testcases/*.txt")
	if err != nil || len(files) < 90 {
		t.Fatalf("%d test cases found, want at least 90 (%v)", len(files), err)
	}
	d := driver{converter: converter{texts: statusTexts{}}}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			c := parseCase(t, f)
			raw, err := hex.DecodeString(strings.ReplaceAll(c["bytes"], " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			in := newReader(raw)
			v := in.DataValue(0)
			if in.Err != nil || len(in.B) > 0 {
				t.Fatalf("%d of %d bytes are left: %v", len(in.B), len(raw), in.Err)
			}
			want, ok := parseType(c["type"])
			if !ok {
				t.Fatalf("type %q", c["type"])
			}
			r := d.reading(7, &v, want)
			if got := show(r); got != c["want"] || r.Tag != 7 {
				t.Errorf("got  %s\nwant %s", got, c["want"])
			}
			at := time.UnixMicro(r.Time).UTC().Format(time.RFC3339Nano)
			if r.Time == 0 {
				at = "none"
			}
			if at != c["time"] {
				t.Errorf("time %s, want %s", at, c["time"])
			}
		})
	}
}

func parseCase(t testing.TB, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !strings.HasPrefix(line, "#") {
			c[key] = value
		}
	}
	return c
}

// show writes a reading without its time in one line.
func show(r telemetry.Reading) string {
	s := r.Quality.String()
	if r.Value.Kind != telemetry.KindNone {
		s += " " + showValue(r.Value)
	}
	if r.Reason != "" {
		s += fmt.Sprintf(" %q", r.Reason)
	}
	return s
}

func showValue(v telemetry.Value) string {
	switch v.Kind {
	case telemetry.KindBool:
		return fmt.Sprintf("bool %t", v.Bits == 1)
	case telemetry.KindInt:
		return fmt.Sprintf("int %d", int64(v.Bits))
	case telemetry.KindUint:
		return fmt.Sprintf("uint %d", v.Bits)
	case telemetry.KindFloat32:
		return fmt.Sprintf("float32 %#08x", v.Bits)
	case telemetry.KindFloat64:
		return fmt.Sprintf("float64 %v", math.Float64frombits(v.Bits))
	case telemetry.KindString:
		return fmt.Sprintf("string %q", v.Text)
	case telemetry.KindTime:
		return "time " + v.AsTime().Format("2006-01-02T15:04:05.9999999Z07:00")
	}
	var elems []string
	v.Elements(func(e telemetry.Value) bool {
		elems = append(elems, showValue(e))
		return true
	})
	return "array [" + strings.Join(elems, ", ") + "]"
}

// TestBounds has values that are decoded but too large for a reading.
func TestBounds(t *testing.T) {
	texts := make([]string, 40)
	for i := range texts {
		texts[i] = strings.Repeat("x", 60000)
	}
	deep := any([]float64{1})
	for range 9 {
		deep = nest(deep)
	}
	for _, c := range []struct {
		value any
		want  string
	}{
		{strings.Repeat("x", 65536), "text of 65536 bytes is over 65535"},
		{make([]byte, 40000), "text of 80000 bytes is over 65535"},
		{make([]float32, 65536), "array of 65536 elements is over 65535"},
		{[]string{strings.Repeat("x", 65536)}, "element 0: text of 65536 bytes is over 65535"},
		{texts, "element 17: array of more than 1048576 bytes"},
		{make([]float64, 65535), ""},
	} {
		var d decoder
		_, reason := d.value(encoded(t, c.value), wanted{})
		if reason != c.want {
			t.Errorf("%T: %q, want %q", c.value, reason, c.want)
		}
	}
	var d decoder
	if _, reason := d.value(encoded(t, deep), wanted{}); !strings.Contains(reason, "array of more than 8 dimensions") {
		t.Errorf("nested variants: %q", reason)
	}
}

// encoded returns a value as a variant on the wire, made by the library.
func encoded(t testing.TB, v any) []byte {
	t.Helper()
	variant, ok := v.(*ua.Variant)
	if !ok {
		variant = ua.MustVariant(v)
	}
	b, err := ua.Encode(variant)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nest puts a value into an array of variants.
func nest(v any) any {
	inner, ok := v.(*ua.Variant)
	if !ok {
		inner = ua.MustVariant(v)
	}
	return ua.MustVariant([]*ua.Variant{inner})
}

// TestScratchIsReused holds that one array cannot show through into the next.
func TestScratchIsReused(t *testing.T) {
	var d decoder
	first, _ := d.value(encoded(t, []string{"a", "b"}), wanted{})
	second, _ := d.value(encoded(t, []int16{1, 2, 3}), wanted{})
	if got := showValue(first) + showValue(second); got != `array [string "a", string "b"]array [int 1, int 2, int 3]` {
		t.Error(got)
	}
	long := encoded(t, []string{strings.Repeat("x", 60000)})
	for range 50 {
		if _, reason := d.value(long, wanted{}); reason != "" {
			t.Fatalf("arrays are counted together: %s", reason)
		}
	}
}

func TestStatusSpelling(t *testing.T) {
	for code, want := range map[ua.StatusCode]string{
		ua.StatusBadNodeIDUnknown:          "BadNodeIdUnknown: the node id refers to a node that does not exist in the server address space",
		ua.StatusBadSecureChannelIDInvalid: "BadSecureChannelIdInvalid: ",
		ua.StatusBadTCPMessageTooLarge:     "BadTcpMessageTooLarge: ",
		ua.StatusBadServerURIInvalid:       "BadServerUriInvalid: ",
		ua.StatusBad:                       "Bad: ",
		ua.StatusBadSessionClosed:          "BadSessionClosed: the server has closed the session; it may be stopping",
	} {
		if got := statusText(code); !strings.HasPrefix(got, want) {
			t.Errorf("%#x: %q, want %q…", uint32(code), got, want)
		}
	}
	for code := range readMends { // what is said does not make it another kind of reason
		if with, without := telemetry.ClassOf(statusTexts{}.reason(code)), telemetry.ClassOf(statusText(code)); with != without {
			t.Errorf("%s: class %s, without what to do %s", statusTexts{}.reason(code), with, without)
		}
	}
	texts := statusTexts{}
	for i := range 2 * maxStatusTexts {
		texts.reason(ua.StatusCode(0x80000000 + uint32(i)))
	}
	if len(texts) != maxStatusTexts {
		t.Errorf("%d texts kept, want at most %d", len(texts), maxStatusTexts)
	}
	if n := testing.AllocsPerRun(100, func() { texts.reason(0x80000000) }); n != 0 {
		t.Errorf("%v allocations for a known code", n)
	}
}
