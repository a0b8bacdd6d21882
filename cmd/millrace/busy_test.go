package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
)

// TestJudge: what is said of a line before it is built.
func TestJudge(t *testing.T) {
	p := func(group string, interval, took time.Duration) poll {
		return poll{"d", group, interval, drivers.Cost{Time: took}}
	}
	const ms = time.Millisecond
	for _, c := range []struct {
		what string
		line line
		want []string // the beginnings
	}{
		{"well", line{p("a", 500*ms, 200*ms), p("b", time.Minute, 300*ms)}, nil},
		{"too much", line{p("a", 500*ms, 730*ms)}, []string{`l cannot do 500ms: it needs 730ms; raise the interval of "a" of "d" (146 %), read fewer`}},
		{"two groups", line{p("a", 500*ms, 400*ms), p("b", time.Second, 500*ms)}, []string{`l cannot do 500ms: it needs 800ms; raise the interval of "a" of "d" (80 %), "b" of "d" (50 %), read`}},
		{"the slow ones alone are too much", line{p("a", 500*ms, 100*ms), p("b", time.Second, 1500*ms)}, []string{`l cannot do 500ms: it needs 850ms; raise the interval of "b" of "d" (150 %)`}},
		{"crowded", line{p("a", 500*ms, 450*ms)}, []string{"l is busy for 90 % of the time"}},
		{"one long poll", line{p("a", 500*ms, 50*ms), p("b", time.Minute, 2*time.Second)}, []string{`l: a poll of "b" of "d" takes 2s, and those each 500ms start late`}},
		{"nothing", nil, nil},
	} {
		var got []string
		if c.line != nil {
			got = c.line.judge("l")
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], c.want[i]) {
				t.Errorf("%s: %q, want %q", c.what, got[i], c.want[i])
			}
		}
	}
}

// TestJudgeIsRight: with the interval that it names, a line keeps up.
func TestJudgeIsRight(t *testing.T) {
	for fast := range 20 {
		for slow := range 20 {
			l := line{{"d", "a", time.Second, drivers.Cost{Time: time.Duration(fast) * 137 * time.Millisecond}},
				{"d", "b", 3 * time.Second, drivers.Cost{Time: time.Duration(slow) * 139 * time.Millisecond}}}
			if l.busy() <= full || l[1].share() >= 0.95 {
				continue
			}
			l[0].interval = l.needs(time.Second)
			if l.busy() > 1.01 || l.busy() < 0.99 {
				t.Errorf("fast %v, slow %v: with %v it is busy for %v", l[0].cost.Time, l[1].cost.Time, l[0].interval, l.busy())
			}
		}
	}
}

// TestPlanOfALine: the plan of a serial line that cannot keep up, under both names of the command.
func TestPlanOfALine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	var tags strings.Builder
	for i := range 40 {
		fmt.Fprintf(&tags, "{name: t%d, address: \"holding:%d\", type: float32},", i, 20*i)
	}
	writeFile(t, file, fmt.Sprintf(`gateway: shop
buffer: {path: %q}
destinations: [{name: cloud, url: "mqtt://h", topic: "t/{device}/{group}"}]
devices:
  - {name: oven, driver: modbus, url: "rtu:///dev/ttyUSB0?baud=9600", groups: [{name: fast, interval: 500ms, tags: [%s]}]}
  - {name: fan, driver: modbus, url: "rtu:///dev/ttyUSB0?baud=9600", unit: 2, groups: [{name: slow, interval: 10s, tags: [{name: a, address: "coil:1"}]}]}
`, t.TempDir(), tags.String()))
	for _, name := range []string{"check", "plan"} {
		var out bytes.Buffer
		if got := execute([]string{name, "--config", file}, &out); got != exitOK {
			t.Fatalf("%s exits with %d: %s", name, got, &out)
		}
		for _, want := range []string{
			`group "fast" each 500ms: 40 tags, 40 requests a cycle, 680 bytes, about 1.3s on the line`,
			"line: 80.1 requests/s", "1.33 KiB/s, busy for 260 % of the time if the device takes 5ms",
			"WARNING: rtu:///dev/ttyUSB0?baud=9600 cannot do 500ms: it needs 1.3s if the device takes 5ms to answer a request; raise the interval of \"fast\" of \"oven\"",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q is not in\n%s", name, want, &out)
			}
		}
	}
}
