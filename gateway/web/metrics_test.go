package web

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// family is what the parser below read of one metric.
type family struct {
	kind   string
	series map[string]float64
}

var seriesLine = regexp.MustCompile(`^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$`)

// parse reads the Prometheus text format strictly: HELP, TYPE, then the family's series, each once.
func parse(t *testing.T, text string) map[string]family {
	t.Helper()
	got, name := map[string]family{}, ""
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if words := strings.SplitN(line, " ", 4); words[0] == "#" {
			switch {
			case words[1] == "HELP" && len(words) == 4 && words[3] != "":
				name = words[2]
				if _, twice := got[name]; twice {
					t.Errorf("family %s twice", name)
				}
				got[name] = family{series: map[string]float64{}}
			case words[1] == "TYPE" && words[2] == name && (words[3] == "gauge" || words[3] == "counter"):
				got[name] = family{words[3], got[name].series}
			default:
				t.Errorf("bad comment %q", line)
			}
			continue
		}
		m := seriesLine.FindStringSubmatch(line)
		if m == nil || m[1] != name {
			t.Fatalf("bad line %q after family %q", line, name)
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if _, twice := got[name].series[m[2]]; err != nil || twice {
			t.Errorf("bad value or a series twice: %q", line)
		}
		got[name].series[m[2]] = v
	}
	return got
}

func metricsOf(t *testing.T, s *Snapshot) map[string]family {
	t.Helper()
	s.Judge()
	var buf bytes.Buffer
	writeMetrics(&buf, s)
	return parse(t, buf.String())
}

// TestMetricsOfCertificates: each that a destination rests on has a series of its own, also where two are files of ours.
func TestMetricsOfCertificates(t *testing.T) {
	s := &Snapshot{Certificates: []Certificate{{Kind: "destination", Owner: "a", Own: true, Name: "own.pem", NotAfter: noon},
		{Kind: "destination", Owner: "a", Own: true, Name: "ca.pem", Authority: "root", NotAfter: noon.Add(time.Hour)}, {Kind: "destination", Owner: "b", Name: "broker", NotAfter: noon.Add(2 * time.Hour)}}}
	all := metricsOf(t, s)["millrace_certificate_not_after_seconds"].series
	for labels, want := range map[string]time.Time{`name="a",certificate="own"`: noon, `name="a",certificate="authority"`: noon.Add(time.Hour), `name="b",certificate="server"`: noon.Add(2 * time.Hour)} {
		if got, ok := all[`kind="destination",`+labels]; !ok || got != float64(want.Unix()) {
			t.Errorf("%s: %v, want %d", labels, all, want.Unix())
		}
	}
}

// TestMetricsBalance reads the ledger back from the exposition and adds it up, as an alert rule would.
func TestMetricsBalance(t *testing.T) {
	got := metricsOf(t, example(noon, "outage"))
	for _, device := range []string{"meter-1", "press-1", "tank-1", "cnc-1"} {
		own := fmt.Sprintf("device=%q", device)
		to := own + `,destination="cloud"`
		sum := got["millrace_readings_suppressed_total"].series[own] + got["millrace_readings_delivered_total"].series[to] +
			got["millrace_readings_buffered"].series[to] + got["millrace_readings_in_flight"].series[to]
		drops := 0
		for labels, v := range got["millrace_readings_dropped_total"].series {
			if strings.HasPrefix(labels, to+",cause=") {
				sum += v
				drops++
			}
		}
		if polled := got["millrace_readings_polled_total"].series[own]; polled == 0 || polled != sum || drops != 5 {
			t.Errorf("%s: polled %v, the rest %v, %d causes", device, polled, sum, drops)
		}
		if v, ok := got["millrace_ledger_imbalance_readings"].series[to]; !ok || v != 0 {
			t.Errorf("%s: imbalance %v", device, v)
		}
	}
	if got["millrace_device_up"].series[`device="tank-1",driver="modbus"`] != 0 || got["millrace_device_up"].series[`device="press-1",driver="modbus"`] != 1 {
		t.Errorf("device_up: %v", got["millrace_device_up"])
	}
	for labels, want := range map[string]time.Time{`kind="destination",name="cloud",certificate="server"`: noon.AddDate(1, 0, 0), `kind="device",name="cnc-1",certificate="own"`: noon.AddDate(10, 0, 0)} {
		if v := got["millrace_certificate_not_after_seconds"].series[labels]; v != float64(want.Unix()) {
			t.Errorf("certificate %s: %v, want %d", labels, v, want.Unix())
		}
	}
	for name, want := range map[string]float64{"millrace_connects_total": 1, "millrace_connects_failed_total": 2, "millrace_idle_closes_total": 0} {
		if v, ok := got[name].series[`device="tank-1"`]; len(got[name].series) != 3 || !ok || v < want {
			t.Errorf("%s: %v", name, got[name].series)
		}
	}
	for labels, want := range map[string]float64{`device="",outcome="refused"`: 4, `device="press-1",outcome="done"`: 3, `device="press-1",outcome="refused"`: 2, `device="press-1",outcome="failed"`: 1} {
		if v, ok := got["millrace_commands_total"].series[labels]; !ok || v != want {
			t.Errorf("commands %s: %v, want %v", labels, v, want)
		}
	}
	if v := got["millrace_destination_connected"].series[`destination="cloud"`]; v != 0 {
		t.Errorf("destination_connected %v", v)
	}
}

// TestMetricNames holds the naming rules of Prometheus: counters end in _total, nothing else does.
func TestMetricNames(t *testing.T) {
	for name, f := range metricsOf(t, example(noon, "")) {
		if strings.HasSuffix(name, "_total") != (f.kind == "counter") {
			t.Errorf("%s is a %s", name, f.kind)
		}
		if len(f.series) == 0 && name != "millrace_state_since_seconds" && name != "millrace_device_clock_skew_seconds" { // has only what is not ok
			t.Errorf("%s has no series", name)
		}
	}
}

// TestMetricsEscape holds that no name breaks out of its label.
func TestMetricsEscape(t *testing.T) {
	for _, name := range []string{`a"b`, `a\`, "a\nb", `a\"} 1` + "\n# HELP x y", "Ofen-Ü", "\xff\xfe"} {
		s := example(noon, "")
		s.Devices[0].Name, s.Gateway = name, name
		got := metricsOf(t, s)
		if n := len(got["millrace_readings_polled_total"].series); n != 4 {
			t.Errorf("%q: %d series, want 4", name, n)
		}
	}
}

// TestMetricsExact holds that counters beyond 2^53 keep every digit.
func TestMetricsExact(t *testing.T) {
	s := example(noon, "")
	s.Devices[0].Polled = math.MaxUint64 - 1
	var buf bytes.Buffer
	writeMetrics(&buf, s)
	if !strings.Contains(buf.String(), `millrace_readings_polled_total{device="meter-1"} 18446744073709551614`) {
		t.Error("a large counter lost digits")
	}
}

func FuzzMetrics(f *testing.F) {
	f.Add("press-1", "rejected")
	f.Add("a\"\\\n", "\xff{}")
	f.Fuzz(func(t *testing.T, name, reason string) {
		s := example(noon, "outage")
		s.Devices[0].Name, s.Devices[0].Reason = name, reason
		if name != "press-1" && name != "tank-1" && name != "cnc-1" {
			metricsOf(t, s)
		}
	})
}

// TestReadmeListsEveryMetric holds README.md and the exposition together, both ways.
func TestReadmeListsEveryMetric(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(string(readme), "Useful alerts")
	listed := map[string]bool{}
	for _, name := range regexp.MustCompile("`((?:millrace|go|process)_[a-z_]+)`").FindAllStringSubmatch(table, -1) {
		listed[name[1]] = true
	}
	for name := range metricsOf(t, example(noon, "")) {
		if !listed[name] {
			t.Errorf("README.md lacks %s", name)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("README.md lists %s, which is not there", name)
	}
}

func TestMetricsOfTheConfig(t *testing.T) {
	s := example(noon, "")
	s.Config = Config{Hash: "0123456789ab", Since: time.Unix(1000, 0), Reloads: 3, Refused: 2, Problem: "secret things that are nobody's business"}
	var out bytes.Buffer
	writeMetrics(&out, s)
	for _, want := range []string{"millrace_config_info{hash=\"0123456789ab\"} 1\n", "millrace_config_loaded_time_seconds 1000\n",
		"millrace_config_last_reload_successful 0\n", "reloads_total{result=\"done\"} 3\n", "reloads_total{result=\"refused\"} 2\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	s.Config.Problem = ""
	writeMetrics(&out, s)
	if !strings.Contains(out.String(), "millrace_config_last_reload_successful 1\n") {
		t.Error("after a reload that was done the metric is not 1")
	}
}
