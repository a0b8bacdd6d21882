package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	yaml "go.yaml.in/yaml/v4"

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

var update = flag.Bool("update", false, "write configs/reference.yaml")

// TestConfigReference: a binary is enough to see every key, and the file in the repository is what it prints.
func TestConfigReference(t *testing.T) {
	const file = "../../configs/reference.yaml"
	var out bytes.Buffer
	if code := execute([]string{"config", "reference"}, &out); code != exitOK {
		t.Fatalf("exit %d", code)
	}
	if *update {
		writeFile(t, file, out.String())
	}
	if out.String() != readFile(t, file) {
		t.Errorf("%s is out of date: go test ./cmd/millrace -run ConfigReference -update", file)
	}
}

// TestConfigPrint: what is printed loads again and prints the same.
func TestConfigPrint(t *testing.T) {
	first := filepath.Join(t.TempDir(), "millrace.yaml")
	writeFile(t, first, strings.ReplaceAll(readFile(t, "../../configs/two-destinations.yaml"), "${env:MQTT_PASSWORD}", "secret-word"))
	var printed, again bytes.Buffer
	if code := execute([]string{"config", "print", "--config", first}, &printed); code != exitOK || strings.Contains(printed.String(), "secret-word") {
		t.Fatalf("exit %d\n%s", code, &printed)
	}
	writeFile(t, first, printed.String())
	if code := execute([]string{"config", "print", "-c", first}, &again); code != exitOK || again.String() != printed.String() {
		t.Errorf("exit %d\n%s\nthen\n%s", code, &printed, &again)
	}
}

// TestConfigSchema: an editor that has the schema accepts what loads and marks common mistakes.
func TestConfigSchema(t *testing.T) {
	check := schemaOfConfigs(t)
	files, _ := filepath.Glob("../../configs/*.yaml")
	good, _ := filepath.Glob("../../gateway/config/testdata/*.good.yaml")
	for _, file := range append(files, good...) {
		if filepath.Base(file) == "compose.yml" || strings.Contains(file, "anchors") { // merge keys are the editor's to resolve
			continue
		}
		if err := check(readFile(t, file)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	plain := readFile(t, "../../configs/modbus-energy-meter.yaml")
	for _, bad := range [][2]string{
		{"gateway:", "gatway:"}, {"driver: modbus", "driver: modbs"}, {"interval: 1s", "interval: 1"}, {"address:", "adress:"}, {"devices:", "web: {enabled: perhaps}\ndevices:"},
		{"devices:", "processors: 5000\ndevices:"}, {"devices:", "buffer: {max_size: 2 gigabytes}\ndevices:"}, {"unit:", "security_policy: none\n    unit:"},
	} {
		text := strings.Replace(plain, bad[0], bad[1], 1)
		if text == plain {
			t.Fatalf("the example has no %q any more", bad[0])
		}
		if check(text) == nil {
			t.Errorf("the schema accepts %q for %q", bad[1], bad[0])
		}
	}
}

// schemaOfConfigs returns what a third-party validator says of a config.
func schemaOfConfigs(t *testing.T) func(text string) error {
	var out bytes.Buffer
	if code := execute([]string{"config", "schema"}, &out); code != exitOK {
		t.Fatalf("exit %d", code)
	}
	document, err := jsonschema.UnmarshalJSON(&out)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("millrace.schema.json", document); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("millrace.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return func(text string) error {
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			t.Fatal(err)
		}
		asJSON, err := json.Marshal(value) // as an editor sees it
		if err != nil {
			t.Fatal(err)
		}
		value, err = jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
		if err != nil {
			t.Fatal(err)
		}
		return compiled.Validate(value)
	}
}

// TestDocumentsNameKeysThatExist: what a document shows as a key, `word: ...`, is one, or is named here as a key of another file.
func TestDocumentsNameKeysThatExist(t *testing.T) {
	keys := map[string]bool{}
	var walk func(x any)
	walk = func(x any) {
		switch x := x.(type) {
		case map[string]any:
			if properties, ok := x["properties"].(map[string]any); ok {
				for name := range properties {
					keys[name] = true
				}
			}
			for _, below := range x {
				walk(below)
			}
		case []any:
			for _, below := range x {
				walk(below)
			}
		}
	}
	var schema any
	if err := json.Unmarshal(config.Schema(protocols()), &schema); err != nil {
		t.Fatal(err)
	}
	if walk(schema); len(keys) < 60 {
		t.Fatalf("the schema has only the keys %v", keys)
	}
	others := map[string]bool{"access": true, "learned": true} // of a template; before what the page says of manners
	named := regexp.MustCompile("`([a-z][a-z0-9_]*):(?: [^`]*)?`|(?m)^ {4,}(?:- )?([a-z][a-z0-9_]*):(?: |$)|`(?:buffer|log|web|retry|tls|backlog_limit)\\.([a-z_]+)`")
	seen := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git") {
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(path) != ".md" || filepath.Base(path) == "CHANGELOG.md" {
			return err
		}
		for _, m := range named.FindAllStringSubmatch(readFile(t, path), -1) {
			if seen++; !keys[m[1]+m[2]+m[3]] && !others[m[1]] {
				t.Errorf("%s shows %s, which is no key of a config", path, m[0])
			}
		}
		return nil
	})
	if err != nil || seen < 30 {
		t.Errorf("%d keys are named in documents; %v", seen, err)
	}
}

// TestDocumentedWalk: where the README leads through the source, each file that it links has the function named behind it, and each
// file named in brackets is in the folder of the link before it.
func TestDocumentedWalk(t *testing.T) {
	_, text, ok := strings.Cut(readFile(t, "../../README.md"), "\n## Reading the source\n")
	if text, _, _ = strings.Cut(text, "\n## "); !ok {
		t.Fatal("the README has no such section")
	}
	functions, files, folder := 0, 0, ""
	for _, m := range regexp.MustCompile("\\]\\(([^)]+)\\)(?:\\s+`(\\w+)`)?|`(\\w+\\.go)`").FindAllStringSubmatch(text, -1) {
		switch link, function, file := m[1], m[2], m[3]; {
		case file != "":
			files++
			readFile(t, filepath.Join("../..", folder, file))
		case function == "":
			folder = filepath.Dir(link)
		default:
			functions++
			folder = filepath.Dir(link)
			sources := link
			if filepath.Ext(link) == ".md" {
				sources = filepath.Join(folder, "*.go")
			}
			paths, _ := filepath.Glob(filepath.Join("../..", sources))
			if !slices.ContainsFunc(paths, func(p string) bool {
				return regexp.MustCompile(`(?m)^func (\(.*\) )?` + function + `\(`).MatchString(readFile(t, p))
			}) {
				t.Errorf("%s has no %s", link, function)
			}
		}
	}
	if functions < 10 || files < 5 {
		t.Errorf("the walk names %d functions and %d files", functions, files)
	}
}
