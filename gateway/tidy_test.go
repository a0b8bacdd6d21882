package gateway_test

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestTidy holds the house rules of the whole repository: who may import what, the sizes of files and functions,
// a comment for each package and exported name, and what may lie at the top level. CONTRIBUTING.md has the reasons.
func TestTidy(t *testing.T) {
	mistakes, err := tidy(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mistakes {
		t.Error(m)
	}
}

const ours = "millrace/"

// all, in tidyImports, lets a package import every other of ours.
var all = []string{"*"}

// tidyImports is which packages of ours each package may import. The flow has one direction: device, driver, poller,
// pipeline, buffer, publisher, broker; only gateway and the programs put them together. A package that is not
// here is a mistake: say first where in the flow it stands.
var tidyImports = map[string][]string{
	"cmd/millrace":            all,
	"cmd/millrace/demo":       all,
	"cmd/millrace/importer":   all,
	"cmd/millrace/modbustool": all,
	"cmd/millrace-bench":      {"buffer", "drivers/modbus/modbussim", "drivers/opcua/opcuasim"},
	"gateway": {"buffer", "drivers", "drivers/files", "drivers/peer", "drivers/telemetry", "gateway/command", "gateway/config", "gateway/derive", "gateway/format", "gateway/format/jsonmsg",
		"gateway/link", "gateway/link/mqtt", "gateway/pipeline", "gateway/poller", "gateway/publisher", "gateway/record", "gateway/values", "gateway/web"},
	"gateway/web":                 {"buffer", "drivers/telemetry", "gateway/record", "gateway/values"},
	"gateway/publisher":           {"buffer", "drivers/peer", "gateway/format", "gateway/link", "gateway/record"},
	"gateway/command":             {"drivers", "drivers/telemetry", "gateway/poller"},
	"gateway/format":              {"drivers/telemetry", "gateway/link", "gateway/record", "gateway/values"},
	"gateway/format/jsonmsg":      {"drivers/telemetry", "gateway/format", "gateway/link", "gateway/record", "gateway/values"},
	"gateway/link":                {},
	"gateway/link/mqtt":           {"drivers/peer", "gateway/link"},
	"gateway/link/mqtt/brokersim": {},
	"gateway/pipeline":            {"drivers/telemetry", "gateway/derive", "gateway/record", "gateway/values"},
	"gateway/derive":              {"drivers/telemetry"},
	"gateway/values":              {"drivers/telemetry", "gateway/record"},
	"gateway/poller":              {"drivers", "drivers/peer", "drivers/telemetry"},
	"gateway/record":              {"drivers/telemetry"},
	"gateway/config":              {"configs/templates", "drivers", "drivers/files", "drivers/peer", "drivers/telemetry", "gateway/derive"},
	"gateway/faults":              {},
	"buffer":                      {"buffer/pages"},
	"buffer/pages":                {},
	"buffer/powercut":             {"buffer"}, // tests only
	"configs/templates":           {},
	"drivers":                     {"drivers/peer", "drivers/telemetry"},
	"drivers/telemetry":           {},
	"drivers/drivertest":          {"drivers", "drivers/telemetry"},
	"drivers/callers":             {},
	"drivers/files":               {},
	"drivers/peer":                {"drivers/files"},
	"drivers/modbus":              {"drivers", "drivers/callers", "drivers/peer", "drivers/telemetry"},
	"drivers/modbus/modbussim":    {},
	"drivers/opcua":               {"drivers", "drivers/callers", "drivers/files", "drivers/peer", "drivers/opcua/wire", "drivers/telemetry"},
	"drivers/opcua/wire":          {},
	"drivers/opcua/opcuasim":      {},
}

// tidyTestImports is what the tests of any package may import besides.
var tidyTestImports = []string{"drivers/drivertest", "drivers/telemetry", "gateway/link/mqtt", "drivers/modbus/modbussim", "drivers/opcua/opcuasim", "gateway/link/mqtt/brokersim"}

// tidyLibraries is which packages may import each library that has an owner.
var tidyLibraries = map[string][]string{
	"github.com/simonvetter/modbus":       {"drivers/modbus"},
	"github.com/gopcua/opcua":             {"drivers/opcua", "drivers/opcua/opcuasim"},
	"go.etcd.io/bbolt":                    {"buffer"},
	"github.com/eclipse/paho.mqtt.golang": {"gateway/link/mqtt", "gateway/link/mqtt/brokersim", "gateway/faults"},
	"github.com/gorilla/websocket":        {"gateway/link/mqtt"},
	"github.com/mochi-mqtt/server":        {"gateway/link/mqtt/brokersim"},
	"gonum.org/v1/plot":                   {"cmd/millrace-bench"}, // and so none of the gateway's module
}

// tidyTop is what may lie at the top level, besides names with a dot and what .gitignore names.
var tidyTop = []string{"cmd", "gateway", "drivers", "buffer", "configs", "go.mod", "go.sum", "Dockerfile", "README.md",
	"LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"}

// tidyModules is which folders have a go.mod. One in another folder takes that folder out of `go vet ./...` and `go test ./...`
// without anybody noticing; its files are checked here all the same.
var tidyModules = []string{".", "cmd/millrace-bench"}

const (
	maxFileLines     = 500
	maxFunctionLines = 70
)

// tidier collects the mistakes of a tree, each as "path:line: what; how to mend it".
type tidier struct {
	fsys      fs.FS
	files     *token.FileSet
	mistakes  []string
	commented map[string]bool // by folder: whether a file has a package comment
}

// tidy returns the mistakes of the repository in fsys, in order of path.
func tidy(fsys fs.FS) ([]string, error) {
	t := &tidier{fsys: fsys, files: token.NewFileSet(), commented: make(map[string]bool)}
	if err := t.topLevel(); err != nil {
		return nil, err
	}
	if err := fs.WalkDir(fsys, ".", t.visit); err != nil {
		return nil, err
	}
	for folder, commented := range t.commented {
		if !commented {
			t.report(folder, "the package has no comment; say in one file what it owns, what it promises, who calls it")
		}
	}
	slices.Sort(t.mistakes)
	return t.mistakes, nil
}

func (t *tidier) report(where, format string, args ...any) {
	t.mistakes = append(t.mistakes, where+": "+fmt.Sprintf(format, args...))
}

// at returns the place of a node for report.
func (t *tidier) at(pos token.Pos) string {
	p := t.files.Position(pos)
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

func (t *tidier) topLevel() error {
	ignored, err := ignoredNames(t.fsys)
	if err != nil {
		return err
	}
	entries, err := fs.ReadDir(t.fsys, ".")
	for _, e := range entries {
		name := e.Name()
		matches := func(pattern string) bool { ok, _ := path.Match(pattern, name); return ok }
		if name[0] != '.' && !slices.Contains(tidyTop, name) && !slices.ContainsFunc(ignored, matches) {
			t.report(name, "does not belong at the top level; put it beside what it serves")
		}
	}
	return err
}

// ignoredNames returns the lines of .gitignore that concern the top level, without slashes around them.
func ignoredNames(fsys fs.FS) (names []string, err error) {
	b, err := fs.ReadFile(fsys, ".gitignore")
	if err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		names = append(names, strings.Trim(lines.Text(), "/"))
	}
	return names, nil
}

// visit checks one file of the walk: Go files, and where modules begin.
func (t *tidier) visit(name string, entry fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	base := path.Base(name)
	if entry.IsDir() {
		if base == "testdata" || base == "node_modules" || (base[0] == '.' && name != ".") {
			return fs.SkipDir
		}
		return nil
	}
	if base == "go.mod" && !slices.Contains(tidyModules, path.Dir(name)) {
		t.report(name, "a module of its own; delete it, or enter its folder in tidyModules and in .ci/run")
	}
	if path.Ext(base) != ".go" {
		return nil
	}
	return t.goFile(name)
}

func (t *tidier) goFile(name string) error {
	base := path.Base(name)
	source, err := fs.ReadFile(t.fsys, name)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(t.files, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	folder, test := path.Dir(name), strings.HasSuffix(base, "_test.go")
	if n := t.files.File(file.Pos()).LineCount(); n > maxFileLines {
		t.report(name, "%d lines, at most %d; over 500 is two files", n, maxFileLines)
	}
	t.commented[folder] = t.commented[folder] || file.Doc != nil
	t.imports(folder, test, file)
	t.functions(file)
	t.unfinished(file)
	if !test {
		t.names(file)
	}
	return nil
}

func (t *tidier) imports(folder string, test bool, file *ast.File) {
	allowed, known := tidyImports[folder]
	if !known {
		t.report(t.at(file.Package), "the package %q has no row in tidyImports; a new package needs a place in the flow", folder)
		return
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.report(t.at(spec.Pos()), "unquote import: %v", err)
			continue
		}
		if name, own := strings.CutPrefix(imported, ours); own {
			inTest := test && (name == folder || slices.Contains(tidyTestImports, name))
			if !inTest && !slices.Equal(allowed, all) && !slices.Contains(allowed, name) {
				t.report(t.at(spec.Pos()), "%s may not import %s; it may import %q", folder, name, allowed)
			}
		}
		for library, owners := range tidyLibraries {
			if (imported == library || strings.HasPrefix(imported, library+"/")) && !slices.Contains(owners, folder) {
				t.report(t.at(spec.Pos()), "%s may not import %s; only %q may", folder, imported, owners)
			}
		}
	}
}

func (t *tidier) functions(file *ast.File) {
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if f.Name.Name == "init" && f.Recv == nil {
			t.report(t.at(f.Pos()), "func init; call it where it is needed")
		}
		if n := t.files.Position(f.End()).Line - t.files.Position(f.Pos()).Line + 1; n > maxFunctionLines {
			t.report(t.at(f.Pos()), "%s has %d lines, at most %d; split it", f.Name.Name, n, maxFunctionLines)
		}
	}
}

var unfinishedWord = regexp.MustCompile(`\b(TODO|FIXME)\b`)

func (t *tidier) unfinished(file *ast.File) {
	for _, group := range file.Comments {
		for _, c := range group.List {
			if word := unfinishedWord.FindString(c.Text); word != "" {
				t.report(t.at(c.Pos()), "%s; do it, or open an issue", word)
			}
		}
	}
}

// names checks that each exported name has a doc comment. Names of a group of constants or variables may
// share the group's.
func (t *tidier) names(file *ast.File) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || ast.IsExported(receiver(d.Recv))) {
				t.undocumented(d.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				t.spec(d, spec)
			}
		}
	}
}

func (t *tidier) spec(group *ast.GenDecl, spec ast.Spec) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		// The comment of a group says nothing of a type in it; without parentheses it is the type's own.
		if s.Name.IsExported() && s.Doc == nil && (group.Doc == nil || group.Lparen.IsValid()) {
			t.undocumented(s.Name)
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && group.Doc == nil && s.Doc == nil && s.Comment == nil {
				t.undocumented(name)
			}
		}
	}
}

func (t *tidier) undocumented(name *ast.Ident) {
	t.report(t.at(name.Pos()), "exported %s has no comment; give it a full sentence with units, bounds and errors", name.Name)
}

// receiver returns the name of the type that a method belongs to.
func receiver(list *ast.FieldList) string {
	x := list.List[0].Type
	for {
		switch e := x.(type) {
		case *ast.StarExpr:
			x = e.X
		case *ast.IndexExpr:
			x = e.X
		case *ast.IndexListExpr:
			x = e.X
		case *ast.Ident:
			return e.Name
		default:
			return ""
		}
	}
}
