package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"millrace/drivers/telemetry"
	"millrace/gateway/web"
)

// TestWatchTable: rows that come one by one stand in the columns of the first ones, and begin with the time of day.
func TestWatchTable(t *testing.T) {
	var out bytes.Buffer
	p, err := newValuePrinter(&out, "table", true)
	if err != nil {
		t.Fatal(err)
	}
	row := func(device, tag, value, reason string) {
		p.print(&web.Value{Device: device, Group: "g", Tag: tag, Value: json.Number(value), Unit: "°C", Quality: "good", Reason: reason, At: 1_700_000_000_250})
	}
	row("press-1", "temperature", "21.5", "")
	row("press-2", "t", "5", "")
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"7", "1234567", "8"} {
		row("p", "t", value, "why\nnot")
		if err := p.flush(); err != nil {
			t.Fatal(err)
		}
	}
	row("p", "t", strings.Repeat("9", 400), "")
	row("p", "t", "8", "")
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	want := `TIME UTC      DEVICE   GROUP  TAG          VALUE  UNIT  QUALITY  REASON
22:13:20.250  press-1  g      temperature  21.5   °C    good
22:13:20.250  press-2  g      t            5      °C    good
22:13:20.250  p        g      t            7      °C    good     why�not
22:13:20.250  p        g      t            1234567  °C    good     why�not
22:13:20.250  p        g      t            8        °C    good     why�not
22:13:20.250  p        g      t            ` + strings.Repeat("9", 39) + `…  °C    good
22:13:20.250  p        g      t            8                                         °C    good
`
	if out.String() != want {
		t.Errorf("shown:\n%swant:\n%s", &out, want)
	}
}

// TestLongValues: the table cuts a long array, and a program gets all of it.
func TestLongValues(t *testing.T) {
	long := make([]any, 20_000)
	for i := range long {
		long[i] = json.Number("1.5")
	}
	for format, want := range map[string]bool{"table": false, "json": true, "csv": true} {
		var out bytes.Buffer
		p, err := newValuePrinter(&out, format, false)
		if err != nil {
			t.Fatal(err)
		}
		p.print(&web.Value{Device: "a", Tag: "t", Value: long, Quality: "good"})
		if err := p.flush(); err != nil {
			t.Fatal(err)
		}
		if whole := strings.Count(out.String(), "1.5") == len(long); whole != want || out.Len() < 40 {
			t.Errorf("%s: %d bytes, whole: %v", format, out.Len(), whole)
		}
	}
}

func TestCut(t *testing.T) {
	for text, want := range map[string]string{"": "", "abc": "abc", "größe": "grö…", "größ": "größ", "abcde": "abc…"} {
		if got := cut(text, 4); got != want {
			t.Errorf("%q is cut to %q, want %q", text, got, want)
		}
	}
}

// TestFloatText: a number reads as in the other commands, and is the same number.
func TestFloatText(t *testing.T) {
	for x, want := range map[float64]string{676380402: "676380402", 0: "0", -0.25: "-0.25", 1e20: "100000000000000000000", 1e21: "1e+21", 1e-7: "1e-07", 1e-6: "0.000001", 1.7976931348623157e308: "1.7976931348623157e+308"} {
		if got := valueText(telemetry.Float64(x), 0); got != want {
			t.Errorf("%v is %q, want %q", x, got, want)
		}
	}
	for _, x := range []float64{math.NaN(), math.Inf(1)} {
		if got := valueText(telemetry.Float64(x), 0); got != fmt.Sprint(x) {
			t.Errorf("%v is %q", x, got)
		}
	}
	if got := valueText(telemetry.Float32(16777216), 0); got != "16777216" {
		t.Errorf("float32: %q", got)
	}
}

// TestLostIsShown: a tag of which readings never came says so behind why it is bad.
func TestLostIsShown(t *testing.T) {
	for want, v := range map[string]*web.Value{
		"":         {},
		"no power": {Reason: "no power"},
		"1 reading lost between two pushes, at 00:01:01Z":                         {Lost: 1, LostAt: 61_000},
		"no power; 1,200 readings lost between two pushes, the last at 00:01:01Z": {Lost: 1200, LostAt: 61_000, Reason: "no power"},
	} {
		if got := reasonText(v); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestWatchEnds: a gateway that stops ends a watch with exit code 1 and says so.
func TestWatchEnds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	file, stop := running(t, dir)
	until(t, "good", "values", "--config", file)
	table, lines := newTail(), newTail()
	code, said := make(chan int, 1), make(chan error, 1)
	go func() { code <- execute([]string{"values", "--watch", "--config", file}, table) }()
	go func() {
		f := valuesFlags{at: gatewayFlags{path: dir}, format: "json", watch: true}
		said <- f.show(t.Context(), lines, "", "")
	}()
	for range 3 { // what was there, and two that came
		if row := <-table.writes; !regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{3}  meter-1  grid   power `).MatchString(row) {
			t.Errorf("the watch writes %q", row)
		}
		<-lines.writes
	}
	stop()
	if got := <-code; got != exitFailed {
		t.Errorf("exit %d", got)
	}
	if err := <-said; err == nil || err.Error() != "the gateway has stopped" {
		t.Errorf("the watch ends with %v", err)
	}
}

// tail passes on the first writes to it.
type tail struct{ writes chan string }

func newTail() *tail { return &tail{make(chan string, 100)} }

func (w *tail) Write(p []byte) (int, error) {
	select {
	case w.writes <- string(p):
	default:
	}
	return len(p), nil
}

// TestValuesOfAnUnknownName: a name that the gateway does not have is answered so, with the one that was meant.
func TestValuesOfAnUnknownName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	file, stop := running(t, dir)
	defer stop()
	until(t, "good", "values", "meter-1/power", "--config", file)
	for name, want := range map[string]string{
		"metre-1":        `the gateway has no device "metre-1"; did you mean "meter-1"?`,
		"pump/power":     `the gateway has no device "pump"; ` + "`millrace values` shows all",
		"meter-1/powder": `device "meter-1" has no tag "powder"; did you mean "power"?`,
		"meter-1/flow":   `device "meter-1" has no tag "flow"; ` + "`millrace values meter-1` shows all",
		"/flow":          `no device has a tag "flow"`,
	} {
		device, tag, _ := strings.Cut(name, "/")
		for _, f := range []valuesFlags{{}, {bad: true}, {watch: true}} {
			f.at.path, f.format = dir, "table"
			if err := f.show(t.Context(), &bytes.Buffer{}, device, tag); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("values %s, %+v: %v; want %q", name, f, err, want)
			}
		}
	}
}

// TestValuesUsage: a format that does not exist is a mistake in the command, as everywhere else.
func TestValuesUsage(t *testing.T) {
	if code, _ := millrace("values", "-o", "xml", "--path", t.TempDir()); code != exitUsage {
		t.Errorf("exit %d", code)
	}
}
