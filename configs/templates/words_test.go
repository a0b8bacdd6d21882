package templates

import (
	"bytes"
	"strings"
	"testing"
)

// TestMistakesAreInWords holds errors free of the program's own names.
func TestMistakesAreInWords(t *testing.T) {
	raw, err := Raw("eastron-sdm120")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(raw); err != nil {
		t.Errorf("what is printed is not taken: %v", err)
	}
	for _, c := range []struct{ text, want string }{
		{"- name: x\n  driver: modbus\n", "a list of devices"},
		{"just a text", "not a template"},
		{string(raw) + "extra: 3\n", `there is no key "extra"`},
		{string(bytes.Replace(raw, []byte("order: ABCD"), []byte("order: [1]"), 1)), "a list does not belong there"},
		{string(bytes.Replace(raw, []byte("max_registers: 80"), []byte("max_registers: many"), 1)), "many"},
	} {
		_, err := Parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "templates.") || strings.Contains(err.Error(), "!!") {
			t.Errorf("%.40q: %v, want %q", c.text, err, c.want)
		}
	}
}
