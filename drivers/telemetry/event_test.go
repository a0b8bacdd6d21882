package telemetry

import (
	"strings"
	"testing"
)

// TestEventsAreObjects: what is embedded is one JSON object and nothing else; all other texts stay texts.
func TestEventsAreObjects(t *testing.T) {
	nested := func(n int) string { return strings.Repeat(`{"a":[`, n/2) + strings.Repeat(`]}`, n/2) }
	for text, want := range map[string]bool{
		`{}`: true, "{\"a\":\t1}": true, nested(maxEventDepth): true, `{"a":"[[[[[[[[[[[[[[[[[[[[\"[["}`: true,
		"": false, `{`: false, `[]`: false, `"x"`: false, `1`: false, `null`: false, `{}{}`: false, `{},{}`: false, ` {}`: false, "{}\n": false, `{"a":1}],"x":{}`: false,
		`{"a":}`: false, `{a:1}`: false, `{"a":NaN}`: false, "{\"a\":\"\xff\"}": false, "{\"a\":\"\n\"}": false, nested(maxEventDepth + 2): false, nested(1 << 17): false,
	} {
		if got := IsEvent(text); got != want {
			t.Errorf("%.40q: %v", text, got)
		}
	}
}
