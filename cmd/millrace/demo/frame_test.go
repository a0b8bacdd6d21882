package demo

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// plantView is a demo in the middle of its outage.
func plantView(cut bool) *view {
	now := time.UnixMilli(1_766_480_000_000)
	v := &view{now: now, elapsed: 12 * time.Second, span: 20 * time.Second, received: 1234, rate: 71.6, peak: 530, state: "connected",
		since: now.Add(-6 * time.Second), note: `"gateway runs" gateway=demo devices=4 destinations=1`, keys: true, page: "http://127.0.0.1:43121/"}
	if cut {
		v.cut, v.kept, v.oldest, v.state = true, 412, 5900*time.Millisecond, "connecting"
	}
	values := []string{"230.41", "true", "48211", "-0.000123", `"O1001.NC"`, "[1.5,2,3]", "12345678.9"}
	for k, name := range []string{"meter-1", "press-1", "tank-1", "cnc-1"} {
		p := panel{device: name, about: "a simulated machine, Modbus"}
		for n := range 7 - k%2 {
			r := row{tag: fmt.Sprintf("tag_%d_of_%s", n, name), unit: "°C",
				shown: shown{value: json.RawMessage(values[n]), quality: "good", at: now.UnixMilli() - int64(300+k*1500)}}
			switch {
			case k == 1 && n == 3:
				r.shown.quality, r.shown.reason, r.shown.value = "bad", "exception 2", nil
			case k == 2 && n == 1:
				r.shown.quality = "uncertain"
			case k == 3 && n == 5:
				r.shown = shown{}
			}
			p.rows = append(p.rows, r)
		}
		v.panels = append(v.panels, p)
	}
	return v
}

// TestFrameFits holds that a picture never wraps or scrolls, whatever the terminal's size.
func TestFrameFits(t *testing.T) {
	for _, cut := range []bool{false, true} {
		for _, width := range []int{60, 76, 80, 100, 132, 200} {
			for _, height := range []int{5, 16, 24, 40, 60} {
				lines := plantView(cut).frame(width, height, false)
				if len(lines) > height {
					t.Errorf("%dx%d: %d lines", width, height, len(lines))
				}
				for _, line := range lines {
					if n := columns(line); n > width {
						t.Errorf("%dx%d: %d columns: %q", width, height, n, line)
					}
				}
			}
		}
	}
}

// TestFrameSaysEverything holds the facts a person looks for, on the smallest common terminal.
func TestFrameSaysEverything(t *testing.T) {
	text := strings.Join(plantView(true).frame(80, 40, false), "\n")
	for _, want := range []string{"meter-1", "cnc-1", "230.41", "on", "48211", "bad", "◐", "waiting", "412 readings kept", "cut for 6.0 s",
		"1,234 readings", "72/s", "12 of 20 s", "0.3 s", "4.8 s", "°C", "O1001.NC", "http://127.0.0.1:43121/"} {
		if !strings.Contains(text, want) {
			t.Errorf("the picture lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("a picture without colour holds escape sequences")
	}
	small := strings.Join(plantView(false).frame(80, 24, false), "\n")
	if !strings.Contains(small, "more") || !strings.Contains(small, "cnc-1") || !strings.Contains(small, "end and show") {
		t.Errorf("a small terminal loses a device or the keys:\n%s", small)
	}
	if out := os.Getenv("MILLRACE_FRAME"); out != "" {
		if err := os.WriteFile(out, []byte(strings.Join(plantView(true).frame(100, 32, true), "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWords holds that no text from a device reaches the terminal as a command.
func TestWords(t *testing.T) {
	for raw, want := range map[string]string{
		`true`: "on", `false`: "off", `0`: "0", `21.5`: "21.50", `230.414`: "230.41", `0.000123`: "0.000123", `1284000.123`: "1284000.1", `1e300`: "1e+300",
		`"\u001b[2Jx"`: "?[2Jx", `[80.25,-20,5.6]`: "80 -20 6", `{"a":1}`: "{\"a\":1}", `nonsense`: "?", `-7`: "-7", `12345678901234`: "1.235e+13",
	} {
		if got := words(json.RawMessage(raw)); got != want {
			t.Errorf("%s: got %q, want %q", raw, got, want)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(`"a"`, "tag", 80, 24)
	f.Add("\"\\u001b]0;x\\u0007\"", "\x1b[1m", 10, 3)
	f.Fuzz(func(t *testing.T, value, tag string, width, height int) {
		v := plantView(true)
		v.panels[0].rows[0].shown.value = json.RawMessage(value)
		for _, line := range v.frame(width%300, height%100, false) {
			if columns(line) > max(width%300, minWidth) || strings.ContainsRune(line, '\x1b') {
				t.Fatalf("%q", line)
			}
		}
	})
}
