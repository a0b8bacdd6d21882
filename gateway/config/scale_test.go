package config

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

const head = "gateway: press-shop\ndestinations: [{name: cloud, url: \"mqtt://broker.example:1883\"}]\n"

// plant writes a config of many devices, each with one group of many tags, one tag a line.
func plant(devices, tags int) []byte {
	var b bytes.Buffer
	b.WriteString(head + "devices:\n")
	for d := range devices {
		fmt.Fprintf(&b, "  - name: press-%d\n    driver: modbus\n    url: tcp://10.0.%d.%d:502\n    groups:\n      - name: fast\n        interval: 1s\n        tags:\n", d, d/250, d%250)
		for i := range tags {
			fmt.Fprintf(&b, "          - {name: temperature_zone_%d, address: \"holding:%d\", type: float32, order: ABCD, scale: 0.1, offset: 0, unit: \"°C\"}\n", i, i*2%65536)
		}
	}
	return b.Bytes()
}

func writeConfig(tb testing.TB, data []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "plant.yaml")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// tricks are texts with a list of tags, or what looks like one, that cutting must not misread.
func tricks() map[string]string {
	lines := func(indent, form string) string {
		var b strings.Builder
		for i := range 200 {
			b.WriteString(indent + fmt.Sprintf(form, i) + "\n")
		}
		return b.String()
	}
	device := "devices:\n  - name: press-1\n    driver: modbus\n    url: tcp://10.0.0.1:502\n    groups:\n      - name: fast\n        interval: 1s\n"
	one := "- {name: t%[1]d, address: \"holding:%[1]d\"}"
	list := lines("          ", one)
	group := device + "        tags:\n"
	return map[string]string{
		"plain":          string(plant(3, 70)[len(head):]),
		"small devices":  string(plant(70, 3)[len(head):]),
		"block items":    group + lines("          ", "- name: t%[1]d\n            address: holding:%[1]d"),
		"dash at key":    group + lines("        ", one),
		"tags first":     strings.Replace(device, "- name: fast\n", "- tags:\n"+list+"        name: fast\n", 1),
		"comments":       device + "        tags: # many\n\n# left\n" + lines("          ", one+"\n# between") + "# end\n",
		"crlf":           strings.ReplaceAll(group+list, "\n", "\r\n") + "x: 1\r\n",
		"key after":      group + list + "        report: on-change\ngrace_time: 3s\n",
		"braces split":   group + lines("          ", "- {name: t%[1]d,\n             address: \"holding:%[1]d\"}"),
		"braces outside": group + lines("          ", "- {name: t%[1]d,\n  address: \"holding:%[1]d\"}"),
		"quotes split":   group + lines("          ", "- {name: \"t%[1]d\n          - x\", address: \"holding:%[1]d\"}"),
		"in block text":  device + "        tags: [{name: t, address: \"holding:1\"}]\n        note: |\n          tags:\n" + list,
		"in quotes":      device + "        note: \"a\n          tags:\n" + list + "\"\n",
		"in braces":      "x: {\n  tags:\n" + list + "}\n",
		"wrong level":    "tags:\n" + list,
		"text instead":   group + "          x\n" + list,
		"text after":     group + list + "         x\n",
		"bad item":       group + list + "          - {name: last\n",
		"bad middle":     group + strings.Replace(list, "t150,", "t150, ,", 1),
		"mistakes":       group + strings.Replace(list, "holding:150\"", "holding:70000\"", 1) + "          - {name: t5, typ: x}\n",
		"second group":   group + list + "      - name: slow\n        interval: 1s\n        tags:\n" + strings.Replace(list, "holding:150\"", "x\"", 1),
		"second device":  group + list + strings.Replace(group, "devices:\n", "", 1) + list,
		"outdented":      group + list + "         - {name: u, address: \"holding:1\"}\n",
		"tab":            group + list + "\t  - {name: u, address: \"holding:1\"}\n",
		"document end":   group + list + "---\nx: 1\n",
		"anchor again":   "x: &a holding:1\n" + group + list + "          - {name: u, address: &a \"holding:7\"}\nlog: {level: *a}\n",
		"anchor inside":  group + list + "          - &a {name: u, address: \"holding:7\"}\n          - {<<: *a, name: v}\n",
		"anchor outside": "x: &a holding:1\n" + group + list + "          - {name: u, address: *a}\n",
		"old line break": group + "          # a\rb\u0085c\n" + list + "x: 1\n",
		"not utf-8":      group + list + "x: \xff\n",
	}
}

// loadCut loads data in pieces of so many bytes.
func loadCut(tb testing.TB, path string, data []byte, piece int) (*Config, string) {
	tb.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
	l := newLoader(protocols(), Options{LookupEnv: testEnv})
	l.piece = piece
	c, err := l.load(path)
	if err != nil {
		return nil, strings.ReplaceAll(err.Error(), path, "c.yaml")
	}
	c.protocols = nil
	return c, ""
}

// TestCuttingChangesNothing loads files with and without cutting out their lists.
func TestCuttingChangesNothing(t *testing.T) {
	for name, text := range tricks() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.yaml")
			want, wantErr := loadCut(t, path, []byte(head+text), math.MaxInt/2)
			for _, piece := range []int{1, 100, 3000, 8000} {
				got, gotErr := loadCut(t, path, []byte(head+text), piece)
				if gotErr != wantErr || !reflect.DeepEqual(got, want) {
					t.Errorf("pieces of %d: %.2000s\nwhole: %.2000s", piece, gotErr, wantErr)
				}
			}
		})
	}
}

func TestCutIsMade(t *testing.T) {
	if cuts := findCuts(plant(3, 700), cutPiece); len(cuts) != 1 {
		t.Errorf("%d cuts of a plain plant", len(cuts))
	}
	if doubtful(plant(3, 700)) || !doubtful(append([]byte("x: &a 1\n"), plant(3, 700)...)) {
		t.Error("a plain plant is doubtful, or one with an anchor is not")
	}
}

func TestAliasBombIsBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(head + "devices:\n  - name: d0\n    driver: modbus\n    url: tcp://10.0.0.1:502\n    groups:\n      - name: g0\n        interval: 1s\n        tags: &t\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "          - {name: t%d, address: \"holding:%d\"}\n", i, i)
	}
	for i := range 1000 {
		fmt.Fprintf(&b, "      - {name: g%d, interval: 1s, tags: *t}\n", i+1)
	}
	_, err := load(writeConfig(t, []byte(b.String())))
	if err == nil || !strings.Contains(err.Error(), "there are too many tags; use a second gateway; a config holds 500000 tags") {
		t.Errorf("a million tags by alias: %v", err)
	}

	b.Reset()
	b.WriteString("x: &big\n")
	for i := range 8192 {
		fmt.Fprintf(&b, "  k%d: 1\n", i)
	}
	b.WriteString("log:\n  <<: [" + strings.Repeat("*big, ", 2048) + "*big]\n")
	_, err = load(writeConfig(t, []byte(b.String())))
	if err == nil || !strings.Contains(err.Error(), "more than 16777216 values") {
		t.Errorf("a large block merged many times: %v", err)
	}

	b.Reset()
	b.WriteString("x0: &x0 {a: 1}\n")
	for i := range 40 {
		fmt.Fprintf(&b, "x%d: &x%d {<<: [*x%d, *x%d]}\n", i+1, i+1, i, i)
	}
	if _, err := load(writeConfig(t, []byte(b.String()+"log: {<<: *x40}\n"))); err == nil {
		t.Error("merges within merges load")
	}
}

func TestFileBounds(t *testing.T) {
	_, err := load(writeConfig(t, bytes.Repeat([]byte("# large\n"), maxFile/8+1)))
	if err == nil || !strings.Contains(err.Error(), "the file is larger than 32MiB; split it with include") {
		t.Errorf("a file over the limit: %v", err)
	}
	_, err = load(writeConfig(t, append([]byte("x: ["), bytes.Repeat([]byte("1,"), maxNodes+1)...)))
	if err == nil || !strings.Contains(err.Error(), "too many items to be parsed in one piece") {
		t.Errorf("a file of too many nodes: %v", err)
	}
}

// peakKB returns the most memory that the process has had resident, 0 where /proc does not say.
func peakKB() int {
	status, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	if fields := strings.Fields(after); len(fields) > 0 {
		n, _ := strconv.Atoi(fields[0])
		return n
	}
	return 0
}

// BenchmarkLoad shows the time and memory of a load. peak-MB is the process's peak so far: run one size at a
// time, in a process of its own, with -benchtime 1x:
//
//	go test ./gateway/config -run '^$' -bench 'Load/tags=50000$' -benchtime 1x
func BenchmarkLoad(b *testing.B) {
	for _, size := range []struct{ devices, tags int }{{10, 1000}, {50, 1000}, {1000, 10}, {1, 50000}, {5000, 10}} {
		b.Run(fmt.Sprintf("devices=%d/tags=%d", size.devices, size.devices*size.tags), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "plant.yaml")
			if err := os.WriteFile(path, plant(size.devices, size.tags), 0o600); err != nil {
				b.Fatal(err)
			}
			runtime.GC()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := load(path); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(peakKB())/1024, "peak-MB")
		})
	}
}
