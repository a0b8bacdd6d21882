package modbus

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]address{
		"coil:7":         {7, coil, -1, -1},
		"discrete:3":     {3, discrete, -1, -1},
		"input:20":       {20, input, -1, -1},
		"holding:0":      {0, holding, -1, -1},
		"holding:100":    {100, holding, -1, -1},
		"holding:65535":  {65535, holding, -1, -1},
		"holding:0x64":   {100, holding, -1, -1},
		"holding:0xFFFF": {65535, holding, -1, -1},
		"holding:007":    {7, holding, -1, -1},
		"holding:100.0":  {100, holding, 0, 0},
		"holding:100.15": {100, holding, 15, 15},
		"input:5.3":      {5, input, 3, 3},
		"40001":          {0, holding, -1, -1},
		"40101":          {100, holding, -1, -1},
		"49999":          {9998, holding, -1, -1},
		"400001":         {0, holding, -1, -1},
		"400101":         {100, holding, -1, -1},
		"465536":         {65535, holding, -1, -1},
		"30001":          {0, input, -1, -1},
		"365536":         {65535, input, -1, -1},
		"10001":          {0, discrete, -1, -1},
		"00001":          {0, coil, -1, -1},
		"000001":         {0, coil, -1, -1},
		"065536":         {65535, coil, -1, -1},
		"40101.3":        {100, holding, 3, 3},
		"300021.15":      {20, input, 15, 15},
		"holding:8.0-3":  {8, holding, 0, 3},
		"holding:8.15-4": {8, holding, 4, 15},
		"40009.0-3":      {8, holding, 0, 3},
	} {
		got, m := parseAddress(text)
		if m != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, m, want)
		}
	}
}

func TestParseAddressMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "it names no table; write coil:7, discrete:3, input:20, holding:100 or a number like 40101",
		"temperature":                  "it names no table; write coil:7, discrete:3, input:20, holding:100 or a number like 40101",
		"100":                          "it names no table; did you mean holding:100? Numbers of the 40101 kind have five or six digits",
		"100.3":                        "it names no table; did you mean holding:100.3? Numbers of the 40101 kind have five or six digits",
		"4000001":                      "it names no table; did you mean holding:4000001? Numbers of the 40101 kind have five or six digits",
		"40000":                        "numbers of this kind begin at 1; the first is 40001, which is holding:0",
		"400000":                       "numbers of this kind begin at 1; the first is 400001, which is holding:0",
		"00000":                        "numbers of this kind begin at 1; the first is 00001, which is coil:0",
		"465537":                       "the last number of its table is 465536; it is holding:65535",
		"20001":                        "no table begins with 2; use 0 for coils, 1 for discrete inputs, 3 for input and 4 for holding registers",
		"holding:65536":                "register 65536 is over 65535; use 0 to 65535",
		"holding:70000":                "register 70000 is over 65535; use 0 to 65535",
		"holding:0x10000":              "register 0x10000 is over 65535; use 0 to 65535",
		"holding:99999999999999999999": "register 99999999999999999999 is over 65535; use 0 to 65535",
		"holding:":                     `"" is not a register number; write it like holding:100`,
		"holding:-1":                   `"-1" is not a register number; write it like holding:100`,
		"holding:1e3":                  `"1e3" is not a register number; write it like holding:100`,
		"holding: 100":                 `" 100" is not a register number; write it like holding:100`,
		"holding:100.16":               `a register has no bit "16"; use bit 0 (least significant) to 15, or several like 0-3`,
		"holding:100.":                 `a register has no bit ""; use bit 0 (least significant) to 15, or several like 0-3`,
		"holding:100.3-3":              `a register has no bit "3-3"; use bit 0 (least significant) to 15, or several like 0-3`,
		"holding:100.3-":               `a register has no bit "3-"; use bit 0 (least significant) to 15, or several like 0-3`,
		"holding:100.x":                `a register has no bit "x"; use bit 0 (least significant) to 15, or several like 0-3`,
		"coil:7.1":                     "coil:7 is a single bit and has no bit 1; did you mean coil:7?",
		"00008.1":                      "coil:7 is a single bit and has no bit 1; did you mean coil:7?",
		"Holding:100":                  `there is no table "Holding"; did you mean holding:100?`,
		"holdings:100":                 `there is no table "holdings"; did you mean holding:100?`,
		"hodling:100":                  `there is no table "hodling"; did you mean holding:100?`,
		"holding-register:100":         `there is no table "holding-register"; did you mean holding:100?`,
		"hr:100":                       `there is no table "hr"; did you mean holding:100?`,
		"ir:20":                        `there is no table "ir"; did you mean input:20?`,
		"di:3":                         `there is no table "di"; did you mean discrete:3?`,
		"coils:7":                      `there is no table "coils"; did you mean coil:7?`,
		"ns=2;s=a:b":                   `there is no table "ns=2;s=a"; use coil, discrete, input or holding`,
	} {
		a, m := parseAddress(text)
		if m == nil {
			t.Errorf("%q is taken as %v", text, a)
		} else if got := m.what + "; " + m.mend; got != want {
			t.Errorf("%q:\n got %s\nwant %s", text, got, want)
		}
	}
}

// FuzzParseAddress holds that whatever is taken is a register that exists, and reads back as itself.
func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"holding:100.3", "coil:7", "40101", "400101.15", "000001", "hr:1", "holding:0xffff", "input:99999999999999", "é:1", "4０001"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, m := parseAddress(text)
		if m != nil {
			if m.what == "" || m.mend == "" {
				t.Errorf("%q: mistake without words: %+v", text, m)
			}
			return
		}
		if a.number > lastRegister || a.bit < -1 || a.bit > 15 || a.table.bits() && a.bit >= 0 {
			t.Errorf("%q: impossible %+v", text, a)
		}
		if again, m := parseAddress(a.String()); m != nil || again != a {
			t.Errorf("%q is %v, which reads back as %v, %v", text, a, again, m)
		}
		if !strings.ContainsAny(text, "0123456789") {
			t.Errorf("%q has no number and is taken as %v", text, a)
		}
	})
}
