package modbus

import (
	"encoding/hex"
	"slices"
	"testing"

	"millrace/drivers/telemetry"
)

// TestGuesses holds that the likely reading of some registers comes first.
func TestGuesses(t *testing.T) {
	for _, c := range []struct {
		registers, kind, order string
		place                  int // that it must have at least, from 0 on
	}{
		{"42f6e979", "float32", "ABCD", 0},         // 123.456
		{"e97942f6", "float32", "CDAB", 0},         //
		{"f64279e9", "float32", "BADC", 0},         //
		{"79e9f642", "float32", "DCBA", 0},         //
		{"43664000", "float32", "ABCD", 0},         // 230.25
		{"00e6", "int16", "", 0},                   // 230
		{"fff6", "int16", "", 0},                   // -10
		{"507265737321", "string", "ABCD", 0},      // Press!
		{"725073652173", "string", "BADC", 1},      //
		{"405edd2f1a9fbe77", "float64", "ABCD", 2}, // 123.456
		{"000186a0", "int32", "ABCD", 2},           // 100000
		{"86a00001", "int32", "CDAB", 1},           //
	} {
		b, err := hex.DecodeString(c.registers)
		if err != nil {
			t.Fatal(err)
		}
		guesses := Guesses(b)
		at := slices.IndexFunc(guesses, func(g Guess) bool { return g.Type == c.kind && g.Order == c.order })
		if at < 0 || at > c.place {
			t.Errorf("%s: %s %s has place %d of %+v", c.registers, c.kind, c.order, at, guesses[:min(len(guesses), 3)])
		}
	}
	seen := map[[2]string]bool{}
	for _, g := range Guesses(make([]byte, 16)) {
		if seen[[2]string{g.Type, g.Order}] || g.Value.Kind == telemetry.KindNone {
			t.Errorf("%+v twice, or without a value", g)
		}
		seen[[2]string{g.Type, g.Order}] = true
	}
	if len(seen) < 30 {
		t.Errorf("%d types and orders, want all that four registers can be", len(seen))
	}
}

func FuzzGuesses(f *testing.F) {
	f.Add([]byte{0x42, 0xf6, 0xe9, 0x79, 0, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, g := range Guesses(b) {
			if 2*g.Registers > len(b) || g.Likely < 0 || g.Likely > 1 {
				t.Errorf("%+v of %d bytes", g, len(b))
			}
		}
	})
}
