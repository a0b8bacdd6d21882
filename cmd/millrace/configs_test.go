package main

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"millrace/gateway/config"
)

// env stands in for the environment that the example configs name.
func env(name string) (string, bool) { return "value-of-" + name, true }

func TestShippedConfigsLoadWithTheRealDrivers(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("found %d example configs, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			cfg, err := config.Load(file, protocols(), config.Options{LookupEnv: env})
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := printPlan(&out, cfg); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(out.String(), "ok\n") || strings.Contains(out.String(), "value-of") {
				t.Errorf("plan does not end in ok, or shows a secret:\n%s", &out)
			}
		})
	}
}

// TestReadmeConfig holds the README's config: what a reader copies must load.
func TestReadmeConfig(t *testing.T) {
	text := readFile(t, "../../README.md")
	_, rest, ok := strings.Cut(text, "    gateway: press-shop\n")
	block, _, ok2 := strings.Cut("    gateway: press-shop\n"+rest, "\n    go run")
	if !ok || !ok2 {
		t.Fatal("README.md has no config any more")
	}
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	writeFile(t, file, strings.ReplaceAll(block, "\n    ", "\n")[4:])
	if code := execute([]string{"check", "--config", file}, io.Discard); code != exitOK {
		t.Errorf("check of the README's config exits with %d", code)
	}
}

func TestExitCodes(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	writeFile(t, bad, "gateway: x\nsurprise: 1\n")
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"version"}, exitOK},
		{[]string{"check", "--config", bad}, exitFailed},
		{[]string{"check", "--config", "no-such-file.yaml"}, exitFailed},
		{[]string{"run", "--config", bad}, exitStartup},
		{[]string{"run", "--surprise"}, exitUsage},
		{[]string{"surprise"}, exitUsage},
		{[]string{"demo", "--for", "5s", "--outage", "9s"}, exitUsage},
		{[]string{"completion", "bash"}, exitOK},
	} {
		if got := execute(c.args, io.Discard); got != c.want {
			t.Errorf("millrace %s exits with %d, want %d", strings.Join(c.args, " "), got, c.want)
		}
	}
}

// BenchmarkCheck10000 is what `check` does with a config of 10,000 tags.
func BenchmarkCheck10000(b *testing.B) {
	file := filepath.Join(b.TempDir(), "millrace.yaml")
	writeFile(b, file, bigConfig(100, 100))
	for b.Loop() {
		cfg, err := config.Load(file, protocols(), config.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := printPlan(&bytes.Buffer{}, cfg); err != nil {
			b.Fatal(err)
		}
	}
}

func bigConfig(devices, tags int) string {
	var s strings.Builder
	s.WriteString("gateway: big\nbuffer: {path: ./data}\ndestinations:\n  - {name: cloud, url: \"mqtt://127.0.0.1:1883\", client_id: big}\ndevices:\n")
	for i := range devices {
		fmt.Fprintf(&s, "  - name: d%d\n    driver: modbus\n    url: tcp://127.0.0.1:%d\n    groups:\n      - name: g\n        interval: 1s\n        tags:\n", i, 10000+i)
		for j := range tags {
			fmt.Fprintf(&s, "          - {name: tag_%d, address: \"holding:%d\", type: float32, unit: kW, scale: 0.1}\n", j, 2*j)
		}
	}
	return s.String()
}

// TestConfigReference: a binary is enough to see every key.
func TestConfigReference(t *testing.T) {
	want := readFile(t, "../../configs/reference.yaml")
	var out bytes.Buffer
	if code := execute([]string{"config", "reference"}, &out); code != exitOK || out.String() != want {
		t.Errorf("exit %d, %d bytes for a file of %d", code, out.Len(), len(want))
	}
}
