package gateway_test

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// tidyTree returns a tree without a mistake, with the given files added.
func tidyTree(files map[string]string) fstest.MapFS {
	tree := fstest.MapFS{
		".gitignore":          {Data: []byte("/data/\n*.test\n/millrace\n")},
		".ci/run":             {},
		"README.md":           {},
		"go.mod":              {},
		"data/state.db":       {},
		"gateway.test":        {},
		"millrace":            {},
		"cmd/millrace/doc.go": {Data: []byte("// Command millrace runs.\npackage main\n")},

		"cmd/millrace-bench/go.mod": {},
		"cmd/millrace-bench/doc.go": {Data: []byte("// Command millrace-bench measures.\npackage main\n")},
	}
	for name, source := range files {
		tree[name] = &fstest.MapFile{Data: []byte(source)}
	}
	return tree
}

func lines(n int) string { return strings.Repeat("\n", n) }

// tidyCases are planted files and, in order, the beginnings of the mistakes they must yield.
var tidyCases = []struct {
	name, file, source string
	want               []string
}{
	// Who may import what.
	{"flow", "gateway/poller/a.go", "// Package poller polls.\npackage poller\nimport (\n\t_ \"millrace/drivers\"\n\t_ \"millrace/drivers/telemetry\"\n\t_ \"time\"\n)\n", nil},
	{"against the flow", "gateway/poller/a.go", "// Package poller polls.\npackage poller\nimport _ \"millrace/buffer\"\n",
		[]string{"gateway/poller/a.go:3: gateway/poller may not import buffer; "}},
	{"a noun that looks up", "drivers/telemetry/a.go", "// Package telemetry names.\npackage telemetry\nimport _ \"millrace/gateway/record\"\n",
		[]string{"drivers/telemetry/a.go:3: drivers/telemetry may not import gateway/record; "}},
	{"a format in the publisher", "gateway/publisher/a.go", "// Package publisher publishes.\npackage publisher\nimport (\n\t_ \"millrace/gateway/format\"\n\t_ \"millrace/gateway/format/jsonmsg\"\n\t_ \"millrace/gateway/link/mqtt\"\n)\n",
		[]string{"gateway/publisher/a.go:5: gateway/publisher may not import gateway/format/jsonmsg; ", "gateway/publisher/a.go:6: gateway/publisher may not import gateway/link/mqtt; "}},
	{"a driver in the gateway", "gateway/a.go", "// Package gateway owns.\npackage gateway\nimport _ \"millrace/drivers/modbus\"\n",
		[]string{"gateway/a.go:3: gateway may not import drivers/modbus; "}},
	{"a prefix is not the package", "gateway/web/a.go", "// Package web shows.\npackage web\nimport _ \"millrace/gateway/record/deep\"\n",
		[]string{"gateway/web/a.go:3: gateway/web may not import gateway/record/deep; "}},
	{"a program", "cmd/millrace/a.go", "package main\nimport (\n\t_ \"millrace/gateway\"\n\t_ \"millrace/drivers/modbus/modbussim\"\n)\n", nil},
	{"a new package", "gateway/util/a.go", "// Package util helps.\npackage util\n",
		[]string{"gateway/util/a.go:2: the package \"gateway/util\" has no row"}},
	{"a simulator in a test", "buffer/a_test.go", "// Package buffer_test tests.\npackage buffer_test\nimport (\n\t_ \"millrace/buffer\"\n\t_ \"millrace/gateway/link/mqtt/brokersim\"\n)\n", nil},
	{"a simulator in the product", "gateway/publisher/a.go", "// Package publisher publishes.\npackage publisher\nimport _ \"millrace/gateway/link/mqtt/brokersim\"\n",
		[]string{"gateway/publisher/a.go:3: gateway/publisher may not import gateway/link/mqtt/brokersim; "}},
	{"a foreign package in a test", "buffer/a_test.go", "// Package buffer keeps.\npackage buffer\nimport _ \"millrace/gateway/record\"\n",
		[]string{"buffer/a_test.go:3: buffer may not import gateway/record; "}},
	{"the gateway in the bench", "cmd/millrace-bench/a.go", "package main\nimport (\n\t_ \"millrace/buffer\"\n\t_ \"millrace/gateway\"\n)\n",
		[]string{"cmd/millrace-bench/a.go:4: cmd/millrace-bench may not import gateway; "}},
	{"black box", "gateway/faults/a_test.go", "// Package faults breaks.\npackage faults\nimport (\n\t_ \"github.com/eclipse/paho.mqtt.golang\"\n\t_ \"millrace/gateway\"\n)\n",
		[]string{"gateway/faults/a_test.go:5: gateway/faults may not import gateway; "}},

	// Who may import which library.
	{"modbus", "drivers/opcua/a.go", "// Package opcua speaks.\npackage opcua\nimport (\n\t_ \"github.com/simonvetter/modbus\"\n\t_ \"github.com/gopcua/opcua/ua\"\n)\n",
		[]string{"drivers/opcua/a.go:4: drivers/opcua may not import github.com/simonvetter/modbus; "}},
	{"opcua", "drivers/modbus/a.go", "// Package modbus speaks.\npackage modbus\nimport (\n\t_ \"github.com/simonvetter/modbus\"\n\t_ \"github.com/gopcua/opcua/ua\"\n)\n",
		[]string{"drivers/modbus/a.go:5: drivers/modbus may not import github.com/gopcua/opcua/ua; "}},
	{"bbolt", "gateway/a_test.go", "// Package gateway owns.\npackage gateway\nimport _ \"go.etcd.io/bbolt\"\n",
		[]string{"gateway/a_test.go:3: gateway may not import go.etcd.io/bbolt; "}},
	{"paho", "cmd/millrace/a.go", "package main\nimport _ \"github.com/eclipse/paho.mqtt.golang\"\n",
		[]string{"cmd/millrace/a.go:2: cmd/millrace may not import github.com/eclipse/paho.mqtt.golang; "}},
	{"paho at home", "gateway/link/mqtt/a.go", "// Package mqtt connects.\npackage mqtt\nimport (\n\t_ \"github.com/eclipse/paho.mqtt.golang/packets\"\n\t_ \"github.com/gorilla/websocket\"\n)\n", nil},
	{"websocket", "gateway/web/a_test.go", "// Package web shows.\npackage web\nimport _ \"github.com/gorilla/websocket\"\n",
		[]string{"gateway/web/a_test.go:3: gateway/web may not import github.com/gorilla/websocket; "}},
	{"plots", "cmd/millrace/a.go", "package main\nimport _ \"gonum.org/v1/plot/vg\"\n",
		[]string{"cmd/millrace/a.go:2: cmd/millrace may not import gonum.org/v1/plot/vg; "}},
	{"plots in the bench", "cmd/millrace-bench/a.go", "package main\nimport _ \"gonum.org/v1/plot/vg\"\n", nil},

	// Modules.
	{"a module of its own", "drivers/modbus/go.mod", "", []string{"drivers/modbus/go.mod: a module of its own; "}},
	{"a workspace", "go.work", "", []string{"go.work: does not belong at the top level; "}},

	// Comments.
	{"no package comment", "buffer/a.go", "\n// Not of the package.\n\npackage buffer\n", []string{"buffer: the package has no comment; "}},
	{"function", "cmd/millrace/a.go", "package main\nfunc A() {}\nfunc b() {}\n", []string{"cmd/millrace/a.go:2: exported A has no comment; "}},
	{"method", "cmd/millrace/a.go", "package main\n// T is.\ntype T[K any] struct{}\nfunc (*T[K]) A() {}\ntype u struct{}\nfunc (u) A() {}\n",
		[]string{"cmd/millrace/a.go:4: exported A has no comment; "}},
	{"type", "cmd/millrace/a.go", "package main\ntype T struct{}\n", []string{"cmd/millrace/a.go:2: exported T has no comment; "}},
	{"types in a group", "cmd/millrace/a.go", "package main\n// Types.\ntype (\n\tT struct{}\n\t// U is.\n\tU struct{}\n)\n",
		[]string{"cmd/millrace/a.go:4: exported T has no comment; "}},
	{"values", "cmd/millrace/a.go", "package main\nconst A = 1\nvar B, c int\n// Both are.\nconst (\n\tD = 1\n\tE = 2\n)\nvar (\n\tF int // is said here\n\tG int\n)\n",
		[]string{"cmd/millrace/a.go:11: exported G has no comment; ", "cmd/millrace/a.go:2: exported A has no comment; ", "cmd/millrace/a.go:3: exported B has no comment; "}},
	{"exported in a test", "cmd/millrace/a_test.go", "package main\nfunc TestA() {}\n", nil},

	// Sizes.
	{"file of 500 lines", "cmd/millrace/a.go", "package main" + lines(500), nil},
	{"file of 501 lines", "cmd/millrace/a.go", "package main" + lines(501), []string{"cmd/millrace/a.go: 501 lines, at most 500; "}},
	{"function of 70 lines", "cmd/millrace/a.go", "package main\nfunc a() {" + lines(69) + "}\n", nil},
	{"function of 71 lines", "cmd/millrace/a.go", "package main\n// A comment does not count.\nfunc a() {" + lines(70) + "}\n",
		[]string{"cmd/millrace/a.go:3: a has 71 lines, at most 70; "}},

	// The rest.
	{"init", "cmd/millrace/a.go", "package main\nfunc init() {}\ntype t struct{}\nfunc (t) init() {}\n", []string{"cmd/millrace/a.go:2: func init; "}},
	{"unfinished", "cmd/millrace/a.go", "package main\nfunc a() {\n\t// TODO: more\n\t_ = \"TODO\" /* FIXME */\n}\n// TODOS are no such thing.\n",
		[]string{"cmd/millrace/a.go:3: TODO; ", "cmd/millrace/a.go:4: FIXME; "}},
	{"top level", "docs/plan.md", "", []string{"docs: does not belong at the top level; "}},
	{"top level file", "main.go", "// Package main is.\npackage main\n", []string{"main.go: does not belong", "main.go:2: the package \".\" has no row"}},
	{"not ours to check", "drivers/modbus/testdata/a.go", "package broken\nfunc init() {", nil},
}

// TestTidyRules plants each mistake and its neighbour that is none: a rule that no longer bites is seen here.
func TestTidyRules(t *testing.T) {
	for _, c := range tidyCases {
		t.Run(c.name, func(t *testing.T) {
			got, err := tidy(tidyTree(map[string]string{c.file: c.source}))
			if err != nil {
				t.Fatal(err)
			}
			begins := func(mistake, want string) bool { return strings.HasPrefix(mistake, want) }
			if !slices.EqualFunc(got, c.want, begins) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestTidyDamaged: a file that is no Go is an error, never skipped.
func TestTidyDamaged(t *testing.T) {
	if got, err := tidy(tidyTree(map[string]string{"cmd/millrace/a.go": "package main\nfunc {"})); err == nil {
		t.Errorf("no error, mistakes %q", got)
	}
}

// TestTidySeesTheRepository: the walk of TestTidy reaches the packages, so that it does not pass for want of files.
func TestTidySeesTheRepository(t *testing.T) {
	for _, folder := range []string{"cmd/millrace", "cmd/millrace-bench", "gateway", "gateway/record", "buffer", "drivers/modbus", "drivers/opcua", "gateway/link/mqtt"} {
		if found, err := fs.Glob(os.DirFS(".."), path.Join(folder, "*.go")); err != nil || len(found) == 0 {
			t.Errorf("%s: %d files, %v", folder, len(found), err)
		}
	}
}
