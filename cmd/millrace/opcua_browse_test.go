package main

import (
	"context"
	"errors"
	"iter"
	"path/filepath"
	"strings"
	"testing"

	"millrace/drivers"
)

// fakeNodes is a server's address space: children by parent.
type fakeNodes map[string][]drivers.Node

func (f fakeNodes) Browse(_ context.Context, parent string) iter.Seq2[drivers.Node, error] {
	return func(yield func(drivers.Node, error) bool) {
		if parent == "gone" {
			yield(drivers.Node{}, errors.New("gone"))
			return
		}
		for _, n := range f[parent] {
			if !yield(n, nil) {
				return
			}
		}
	}
}

func variable(name, address string) drivers.Node {
	return drivers.Node{Name: name, ID: address, Address: address}
}

// TestBrowse: each node is listed once, however often it is met, names stay apart, and what is printed as a device loads.
func TestBrowse(t *testing.T) {
	space := fakeNodes{
		"":    {{Name: "M", ID: "i=1"}, {Name: "M", ID: "i=2"}, {Name: "Start", ID: "i=9", Type: "method"}},
		"i=1": {variable("Speed", "nsu=urn:m;s=a\"b"), variable("Cost ${env:HOME}", "ns=1;i=5"), {Name: "up", ID: "i=1"}},
		"i=2": {variable("Speed", "ns=1;i=6"), variable("Speed", "ns=1;i=5")},
		"i=9": {variable("Arguments", "i=10")},
	}
	walk := func(f browseFlags) (string, error) {
		var out strings.Builder
		w := &nodeWalk{flags: &f, out: &out, browser: space, seen: map[string]bool{}, names: map[string]bool{}}
		if f.format == "yaml" {
			w.head("opc.tcp://h")
		}
		err := w.below(t.Context(), "", "", 0)
		return out.String(), err
	}
	tree, err := walk(browseFlags{depth: 5, format: "tree"})
	if want := "M  i=1\n  Speed = nsu=urn:m;s=a\"b\n  Cost ${env:HOME} = ns=1;i=5\n"; err != nil || !strings.HasPrefix(tree, want) || strings.Contains(tree, "Arguments") || strings.Count(tree, "i=5") != 1 {
		t.Errorf("%v\n%s", err, tree)
	}
	if shallow, _ := walk(browseFlags{depth: 1, format: "tree"}); strings.Contains(shallow, "Speed") {
		t.Errorf("one level is\n%s", shallow)
	}
	device, err := walk(browseFlags{depth: 5, format: "yaml", serverFlags: serverFlags{options: map[string]string{"security_policy": "none", "password": "hunter2"}}})
	if err != nil || strings.Contains(device, "hunter2") {
		t.Fatalf("%v\n%s", err, device)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "server.yaml"), device)
	file := filepath.Join(dir, "millrace.yaml")
	writeFile(t, file, "gateway: g\ndestinations: [{name: c, url: \"mqtt://h\"}]\ninclude: server.yaml\n")
	code, out := millrace("config", "print", "--config", file)
	for _, want := range []string{`name: "M.Speed", address: "nsu=urn:m;s=a\"b"`, `name: "M.Cost $${env:HOME}"`, `name: "M.Speed 2", address: "ns=1;i=6"`} {
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %s in\n%s", code, want, out)
		}
	}
}
