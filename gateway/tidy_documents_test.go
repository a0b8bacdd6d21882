package gateway_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTidyDocuments: what the documents lead to is there, a test that they name exists, and bytes are in binary units.
func TestTidyDocuments(t *testing.T) {
	mistakes, err := tidyDocuments(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mistakes {
		t.Error(m)
	}
}

var (
	documentLink = regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)]*)?\)`) // no urls: they have a colon
	decimalBytes = regexp.MustCompile(`\b[0-9][0-9.,]* ?[kKMGT]B\b`)
	fileName     = regexp.MustCompile("`([a-z_]+\\.go)`")
	funcName     = regexp.MustCompile("`([A-Za-z]+)`")
	testName     = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	testFunc     = regexp.MustCompile(`(?m)^func (` + testName.String() + `)\(`)
	listItem     = regexp.MustCompile(`(?m)^\d+\. `)
)

// tidyDocuments returns the mistakes of the Markdown files in fsys.
func tidyDocuments(fsys fs.FS) (mistakes []string, err error) {
	var tests []string    // that exist
	var named [][2]string // file and test
	err = fs.WalkDir(fsys, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == "testdata" || e.Name() == "node_modules" || e.Name()[0] == '.' && name != ".") {
			return fs.SkipDir
		}
		isTest := strings.HasSuffix(name, "_test.go")
		if path.Ext(name) != ".md" && !isTest {
			return nil
		}
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		text := string(b)
		if isTest {
			for _, m := range testFunc.FindAllStringSubmatch(text, -1) {
				tests = append(tests, m[1])
			}
			return nil
		}
		for _, m := range testName.FindAllString(text, -1) {
			named = append(named, [2]string{name, m})
		}
		for _, m := range documentLink.FindAllStringSubmatch(text, -1) {
			if _, err := fs.Stat(fsys, path.Join(path.Dir(name), m[1])); err != nil {
				mistakes = append(mistakes, name+": leads to "+m[1]+", which is not there")
			}
		}
		for _, m := range decimalBytes.FindAllString(text, -1) {
			mistakes = append(mistakes, name+": "+m+"; bytes are in KiB, MiB and GiB")
		}
		if _, walk, ok := strings.Cut(text, "## Reading the source\n"); ok && name == "README.md" {
			mistakes = append(mistakes, tidyWalk(fsys, walk)...)
		}
		return nil
	})
	for _, n := range named { // by its beginning, as -run takes it
		if !slices.ContainsFunc(tests, func(test string) bool { return strings.HasPrefix(test, n[1]) }) {
			mistakes = append(mistakes, n[0]+": names "+n[1]+", which is no test")
		}
	}
	return mistakes, err
}

// tidyWalk checks that the files and functions that a stop of the README's walk names are in the folders it leads to.
func tidyWalk(fsys fs.FS, walk string) (mistakes []string) {
	for _, stop := range listItem.Split(walk, -1)[1:] {
		stop, _, _ = strings.Cut(stop, "\n\n")
		files, source := sourceOf(fsys, stop)
		for _, m := range fileName.FindAllStringSubmatch(stop, -1) {
			if !slices.Contains(files, m[1]) {
				mistakes = append(mistakes, "README.md: "+m[1]+" is not where the walk leads")
			}
		}
		for _, m := range funcName.FindAllStringSubmatch(stop, -1) {
			if !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + m[1] + `\(`).MatchString(source) {
				mistakes = append(mistakes, "README.md: func "+m[1]+" is not where the walk leads")
			}
		}
	}
	return mistakes
}

// sourceOf returns the names and the joined text of the Go files in the folders that a text leads to.
func sourceOf(fsys fs.FS, text string) (files []string, source string) {
	for _, m := range documentLink.FindAllStringSubmatch(text, -1) {
		folder := m[1]
		if path.Ext(folder) != "" {
			folder = path.Dir(folder)
		}
		found, _ := fs.Glob(fsys, path.Join(folder, "*.go")) // the pattern is well formed
		for _, f := range found {
			b, _ := fs.ReadFile(fsys, f) // what cannot be read is missed by the caller
			files, source = append(files, path.Base(f)), source+string(b)
		}
	}
	return files, source
}

// TestTidyDocumentRules plants each mistake beside what is none.
func TestTidyDocumentRules(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"[here](buffer/a.go), [there](https://example.com/x) and [down](#below), 2 MiB", nil},
		{"[gone](buffer/b.go#x)", []string{"README.md: leads to buffer/b.go, which is not there"}},
		{"22 MB, 1.5KB, 4 GiB", []string{"README.md: 22 MB; bytes are in KiB, MiB and GiB", "README.md: 1.5KB; bytes are in KiB, MiB and GiB"}},
		{"`TestGrow`, `TestGrow/far`, `TestG…`, FuzzGrow and `TestShrink`", []string{"README.md: names FuzzGrow, which is no test", "README.md: names TestShrink, which is no test"}},
		{"## Reading the source\n1. [buffer](buffer/a.go) `Append` in `a.go`, then `grow`.\n\n`Other` is no stop", nil},
		{"## Reading the source\n1. [buffer](buffer) `Take` in `b.go`.\n", []string{"README.md: b.go is not where the walk leads", "README.md: func Take is not where the walk leads"}},
	} {
		tree := tidyTree(map[string]string{"README.md": c.text, "buffer/a_test.go": "package buffer\nfunc TestGrow(t *testing.T) {}\n", "buffer/a.go": "package buffer\nfunc (b *Buffer) Append() {}\nfunc grow() {}\n"})
		if got, err := tidyDocuments(tree); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q, %v", c.text, got, c.want, err)
		}
	}
}
