package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	for _, filter := range []string{"speed", "M.SPEED", "Speed"} {
		if found, err := walk(browseFlags{depth: 5, format: "tree", filter: filter}); err != nil || strings.Count(found, "Speed = ") != 2 || strings.Contains(found, "Cost") {
			t.Errorf("%s: %v\n%s", filter, err, found)
		}
	}
	for _, c := range []struct {
		flags      browseFlags
		node, want string
	}{
		{browseFlags{depth: 5, filter: "Torque"}, "", `no variable below Objects has "Torque" in its path, capitals or not: 6 nodes looked at, 3 variables among them; try a shorter --filter, or another node`},
		{browseFlags{depth: 1, filter: "Speed"}, "", `no variable below Objects has "Speed" in its path, capitals or not: 3 nodes looked at, 0 variables among them, and 2 may have more below; look deeper with --depth, now 1`},
		{browseFlags{depth: 1}, "", `there is no variable below Objects: 3 nodes looked at, and 2 may have more below; look deeper with --depth, now 1`},
		{browseFlags{depth: 5}, "ns=1;i=6", `there is nothing below ns=1;i=6: it is a variable, or an empty folder; browse the folder that it is in, or Objects without a node`},
		{browseFlags{depth: 5, filter: "x"}, "ns=1;i=6", `there is nothing below ns=1;i=6: it is a variable, or an empty folder; browse the folder that it is in, or Objects without a node`},
		{browseFlags{depth: 5}, "i=9", ``},
	} {
		c.flags.format = "tree"
		w := &nodeWalk{flags: &c.flags, out: io.Discard, browser: space, seen: map[string]bool{}, names: map[string]bool{}}
		err := errors.Join(w.below(t.Context(), c.node, "", 0), w.found(c.node))
		if got := fmt.Sprint(err); got != c.want && !(c.want == "" && err == nil) {
			t.Errorf("%+v: %s\nwant %s", c.flags, got, c.want)
		}
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
