package derive

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/drivers/telemetry"
)

func known(names ...string) func(string) bool {
	return func(name string) bool {
		for _, n := range names {
			if n == name {
				return true
			}
		}
		return false
	}
}

func reading(v telemetry.Value) *telemetry.Reading { return &telemetry.Reading{Value: v, Time: 5} }

func TestEval(t *testing.T) {
	values := map[string]*telemetry.Reading{
		"a": reading(telemetry.Int(7)), "b": reading(telemetry.Float32(2)), "on": reading(telemetry.Bool(true)), "state": reading(telemetry.String("run")),
		"active power L1": reading(telemetry.Uint(10)), "zero": reading(telemetry.Int(0)), "late": {Value: telemetry.Int(1), Time: 9, Quality: telemetry.Uncertain, Reason: "held"},
		"raw": reading(telemetry.Int(2301)), "less": reading(telemetry.Int(-1)),
		"gone": {Quality: telemetry.Bad, Reason: "no answer"}, "never": nil, "at": reading(telemetry.Value{Kind: telemetry.KindArray}),
	}
	for text, want := range map[string]telemetry.Reading{
		"a + b":                  {Value: telemetry.Float64(9), Time: 5},
		"a / b":                  {Value: telemetry.Float64(3.5), Time: 5},
		"round(a / 2) - abs(-b)": {Value: telemetry.Float64(2), Time: 5},
		"a > b ? a : b":          {Value: telemetry.Float64(7), Time: 5},
		// As templates write a value with an exponent of its own: exact, where 2301 * 10 ** -1 is not.
		"less < 0 ? raw / 10 ** -less : raw * 10 ** less": {Value: telemetry.Float64(230.1), Time: 5},
		"b < 0 ? raw / 10 ** -b : raw * 10 ** b":          {Value: telemetry.Float64(230100), Time: 5},
		"a % 4":                                           {Value: telemetry.Float64(3), Time: 5},
		"a % zero":                                        {Time: 5, Quality: telemetry.Bad, Reason: "the formula gives NaN, which is no value"},
		"int(a) % 4":                                      {Value: telemetry.Float64(3), Time: 5},
		"on && a > 6":                                     {Value: telemetry.Bool(true), Time: 5},
		`state == "run" ? "busy" : "idle"`:                {Value: telemetry.String("busy"), Time: 5},
		`$env["active power L1"] * 3`:                     {Value: telemetry.Float64(30), Time: 5},
		"max(a, b, late)":                                 {Value: telemetry.Float64(7), Time: 9, Quality: telemetry.Uncertain, Reason: "late: held"},
		"a + gone":                                        {Time: 5, Quality: telemetry.Bad, Reason: "gone: no answer"},
		"late + gone":                                     {Time: 9, Quality: telemetry.Bad, Reason: "gone: no answer"},
		"a + never":                                       {Quality: telemetry.Bad, Reason: "never has not been read yet"},
		"a / zero":                                        {Time: 5, Quality: telemetry.Bad, Reason: "the formula gives +Inf, which is no value"},
		"state * 2":                                       {Time: 5, Quality: telemetry.Bad, Reason: "the formula fails: invalid operation: string * int"},
		"at":                                              {Time: 5, Quality: telemetry.Bad, Reason: "the formula gives <nil>, which is no value"},
		"[a, b]":                                          {Time: 5, Quality: telemetry.Bad, Reason: "the formula gives [7 2], which is no value"},
		`state matches "^r" ? 1 : 0`:                      {Value: telemetry.Float64(1), Time: 5},
		"(1..1000000000)[0] + a":                          {Time: 5, Quality: telemetry.Bad, Reason: "the formula fails: memory budget exceeded"},
	} {
		f, err := Compile(text, func(name string) bool { _, ok := values[name]; return ok })
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for range 2 { // the second time from where the first left off
			in := make([]*telemetry.Reading, len(f.Inputs()))
			for i, name := range f.Inputs() {
				in[i] = values[name]
			}
			if got := f.Eval(in); got != want {
				t.Errorf("%s: %+v, want %+v", text, got, want)
			}
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"a +":                           "unexpected token",
		"a + c":                         `no tag "c"`,
		"1 + 2":                         "names no tag",
		"sqrt(a)":                       "there is no function sqrt",
		"remainder(a, 2)":               "there is no function remainder",
		"map([a], # + 1)":               "unknown name map",
		"now() - a":                     "unknown name now",
		`$env["nobody"] + a`:            `no tag "nobody"`,
		"a.b":                           "",
		"fromJSON(a)":                   "unknown name fromJSON",
		strings.Repeat("-", 9000) + "a": "",
	} {
		f, err := Compile(text, known("a", "b"))
		if want == "" { // refused or not, it ends
			if err == nil {
				f.Eval([]*telemetry.Reading{reading(telemetry.Int(1))})
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	_, err := Compile("x", known())
	if e := (*UnknownTagError)(nil); !errors.As(err, &e) || e.Name != "x" {
		t.Errorf("%v", err)
	}
}

// FuzzEval: whatever is written, it is refused or it gives a reading, in bounded time.
func FuzzEval(f *testing.F) {
	for _, text := range []string{"a + b", `$env["a"]`, "a ? b : 1", "min(a, b)", "[a][0]", "a matches b", "let x = a; x", "a..b", "{a: b}", "a ** b ** 9", "a ?? b", "a | abs()"} {
		f.Add(text, 1.5)
	}
	f.Fuzz(func(t *testing.T, text string, x float64) {
		if len(text) > 4096 {
			return
		}
		done := make(chan struct{})
		defer close(done)
		go func() {
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				panic("it does not end: " + strconv.Quote(text))
			}
		}()
		formula, err := Compile(text, known("a", "b"))
		if err != nil {
			return
		}
		in := []*telemetry.Reading{reading(telemetry.Float64(x)), reading(telemetry.String("b"))}
		if r := formula.Eval(in[:len(formula.Inputs())]); (r.Quality == telemetry.Bad) == (r.Value.Kind != telemetry.KindNone) {
			t.Errorf("%q: %+v", text, r)
		}
	})
}

// TestTextsAreNoNumbers: what can only fail is refused before it runs.
func TestTextsAreNoNumbers(t *testing.T) {
	all := func(string) bool { return true }
	for text, ok := range map[string]bool{`mode * 2`: false, `mode + 1`: false, `x + 1`: true, `mode == "on" ? x : 0`: true, `mode == "on"`: true, `mode + "!"`: true, `$env["the mode"] - 1`: false, `float(mode) * 2`: true} {
		if _, err := Compile(text, all, "mode", "the mode"); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
