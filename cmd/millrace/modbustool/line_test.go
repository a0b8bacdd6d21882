package modbustool

import "testing"

// TestOptionsOfLinesAreKnown: tools take the options of a device and those of its line.
func TestOptionsOfLinesAreKnown(t *testing.T) {
	for option, want := range map[string]bool{"ca_file": true, "pause_between_requests": true, "order": true, "oder": false} {
		if known(option) != want {
			t.Errorf("known(%q) is %v", option, !want)
		}
	}
}
