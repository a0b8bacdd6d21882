package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"millrace/drivers"
	"millrace/drivers/opcua"
	"millrace/drivers/telemetry"
)

// fakeNodes is a server's address space: children by parent.
type fakeNodes map[string][]opcua.Child

func (f fakeNodes) children(_ context.Context, parent string) ([]opcua.Child, error) {
	if parent == "gone" {
		return nil, errors.New("gone")
	}
	return f[parent], nil
}

func variable(name, address string) opcua.Child {
	return opcua.Child{Node: drivers.Node{Name: name, ID: address, Address: address}, Class: "variable"}
}

func object(name, id string) opcua.Child {
	return opcua.Child{Node: drivers.Node{Name: name, ID: id}, Class: "object"}
}

// listed is what browse prints of it.
func (f fakeNodes) listed(t *testing.T, flags browseFlags, node string) (string, error) {
	t.Helper()
	var out strings.Builder
	w := &nodeWalk{children: f.children, depth: flags.depth, seen: map[string]bool{}}
	top, err := w.walk(t.Context(), node)
	l := &listing{flags: &flags, out: &out}
	err = cmp.Or(err, l.print("opc.tcp://h", top), l.nothing(node, w))
	return out.String(), err
}

// TestBrowse: each node is listed once, however often it is met, names stay apart, and what is printed as a device loads.
func TestBrowse(t *testing.T) {
	cost := variable("Cost ${env:HOME}", "ns=1;i=5")
	cost.Type, cost.Unit, cost.Access, cost.Word = "Double", "€", "read+write", "float64"
	limit, secret := variable("EURange", "ns=1;i=7"), variable("Secret", "ns=1;i=8")
	limit.Property, secret.Access = true, "none"
	space := fakeNodes{
		"":         {object("M", "i=1"), object("M", "i=2"), {Node: drivers.Node{Name: "Start", ID: "i=9", Type: "method"}, Class: "method"}},
		"i=1":      {variable("Speed", "nsu=urn:m;s=a\"b"), cost, object("up", "i=1")},
		"i=2":      {variable("Speed", "ns=1;i=6"), variable("Speed", "ns=1;i=5"), secret},
		"i=9":      {variable("Arguments", "i=10")},
		"ns=1;i=5": {limit},
	}
	tree, err := space.listed(t, browseFlags{depth: 5, format: "tree"}, "")
	want := "M  i=1\n  Speed = nsu=urn:m;s=a\"b\n  Cost ${env:HOME} = ns=1;i=5  Double, €, read+write\n    EURange = ns=1;i=7\nM  i=2\n  Speed = ns=1;i=6\n  Secret = ns=1;i=8  none\nStart  i=9  method\n"
	if err != nil || tree != want {
		t.Errorf("%v\n%s\nwant\n%s", err, tree, want)
	}
	if shallow, _ := space.listed(t, browseFlags{depth: 1, format: "tree"}, ""); strings.Contains(shallow, "Speed") {
		t.Errorf("one level is\n%s", shallow)
	}
	for _, filter := range []string{"speed", "M.SPEED", "Speed"} {
		if found, err := space.listed(t, browseFlags{depth: 5, format: "tree", filter: filter}, ""); err != nil || strings.Count(found, "M.Speed = ") != 2 || strings.Contains(found, "Cost") {
			t.Errorf("%s: %v\n%s", filter, err, found)
		}
	}
	if got, err := space.listed(t, browseFlags{depth: 5, format: "tree"}, "gone"); got != "" || err == nil || !strings.HasPrefix(err.Error(), "gone") {
		t.Errorf("of a server that is gone: %v\n%s", err, got)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&nodeWalk{children: space.children, depth: 5, seen: map[string]bool{}}).walk(gone, ""); !errors.Is(err, errInterrupted) {
		t.Errorf("interrupted: %v", err)
	}
	device, err := space.listed(t, browseFlags{depth: 5, format: "yaml", serverFlags: serverFlags{options: map[string]string{"security_policy": "none", "password": "hunter2"}}}, "")
	if err != nil || strings.Contains(device, "hunter2") || strings.Contains(device, "EURange") || !strings.Contains(device, "# left out: 1 variable that this user may not read") {
		t.Fatalf("%v\n%s", err, device)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "server.yaml"), device)
	file := filepath.Join(dir, "millrace.yaml")
	writeFile(t, file, "gateway: g\ndestinations: [{name: c, url: \"mqtt://h\"}]\ninclude: server.yaml\n")
	code, out := millrace("config", "print", "--config", file)
	for _, want := range []string{`name: "M.Speed", address: "nsu=urn:m;s=a\"b"}`, `name: "M.Cost $${env:HOME}", address: "ns=1;i=5", type: float64, unit: "€"}`, `name: "M.Speed 2", address: "ns=1;i=6"}`} {
		if code != exitOK || !strings.Contains(device, want) {
			t.Errorf("exit %d, no %s in\n%s\n%s", code, want, device, out)
		}
	}
}

// TestBrowseNothing: where nothing is found, what was looked for and what to do is said.
func TestBrowseNothing(t *testing.T) {
	space := fakeNodes{
		"":    {object("M", "i=1"), object("M", "i=2"), {Node: drivers.Node{Name: "Start", ID: "i=9"}, Class: "method"}},
		"i=1": {variable("Speed", "ns=1;i=5"), variable("Cost", "ns=1;i=7")},
		"i=2": {variable("Speed", "ns=1;i=6")},
		"i=9": {variable("Arguments", "i=10")},
		"s":   {object("Server", serverObject)},
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
		{browseFlags{depth: 5}, "s", `there is no variable below s: 1 node looked at; browse another node, or Objects without a node; what describes the server itself is below i=2253`},
		{browseFlags{depth: 5}, "i=9", ``},
	} {
		c.flags.format = "tree"
		if _, err := space.listed(t, c.flags, c.node); err == nil && c.want != "" || err != nil && err.Error() != c.want {
			t.Errorf("%+v: %v\nwant %s", c.flags, err, c.want)
		}
	}
}

// TestBrowsePaths: a path that says where a node is counts before one that says where its events come from, and a short one before a long one; what is
// below the Server object is for those who name it.
func TestBrowsePaths(t *testing.T) {
	tank, pump := object("Tank", "ns=1;s=tank"), object("Pump", "ns=1;s=pump")
	tank.Source, pump.Source = true, true
	deep := object("A", "ns=1;s=a")
	space := fakeNodes{
		"":             {object("Server", serverObject), deep, object("Area", "ns=1;s=area"), object("Plant", "ns=1;s=plant")},
		serverObject:   {tank, variable("ServerStatus", "i=2256")},
		"ns=1;s=area":  {tank, pump},
		"ns=1;s=a":     {object("B", "ns=1;s=b")},
		"ns=1;s=b":     {variable("Speed", "ns=1;s=speed")},
		"ns=1;s=plant": {object("Tank", "ns=1;s=tank"), variable("Speed", "ns=1;s=speed")},
		"ns=1;s=tank":  {variable("Level", "ns=1;s=level")},
		"ns=1;s=pump":  {variable("Flow", "ns=1;s=flow")},
	}
	paths := func(node string, depth int) (all []string) {
		out, err := space.listed(t, browseFlags{depth: depth, format: "csv"}, node)
		rows, bad := csv.NewReader(strings.NewReader(out)).ReadAll()
		if err != nil || bad != nil {
			t.Fatal(err, bad, out)
		}
		for _, row := range rows[1:] {
			all = append(all, row[0])
		}
		return all
	}
	if got, want := paths("", 5), []string{"Server", "A", "A.B", "Area", "Area.Pump", "Area.Pump.Flow", "Plant", "Plant.Tank", "Plant.Tank.Level", "Plant.Speed"}; !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if got, want := paths(serverObject, 5), []string{"ServerStatus", "Tank", "Tank.Level"}; !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// TestBrowseFormats: table, JSON and CSV have the same columns and rows.
func TestBrowseFormats(t *testing.T) {
	level := variable("Level", "nsu=urn:m;s=level, left")
	level.Type, level.Unit, level.Access, level.Description, level.Word = "Double", "mm", "read", "of the \x1b[2J tank", "float64"
	level.Range = telemetry.Range{Low: -0.5, High: 2000}
	space := fakeNodes{"": {object("Tank", "nsu=urn:m;s=tank"), {Node: drivers.Node{Name: "Drain", ID: "nsu=urn:m;s=drain", Type: "method"}, Class: "method", Access: "call"}}, "nsu=urn:m;s=tank": {level}}
	for format, want := range map[string]string{
		"table": `PATH        NODE                     CLASS     TYPE    UNIT  RANGE         ACCESS  DESCRIPTION
Tank        nsu=urn:m;s=tank         object
Tank.Level  nsu=urn:m;s=level, left  variable  Double  mm    -0.5 to 2000  read    of the �[2J tank
Drain       nsu=urn:m;s=drain        method                                call
`,
		"csv": "path,node,class,type,unit,range,access,description\nTank,nsu=urn:m;s=tank,object,,,,,\nTank.Level,\"nsu=urn:m;s=level, left\",variable,Double,mm,-0.5 to 2000,read,of the \x1b[2J tank\nDrain,nsu=urn:m;s=drain,method,,,,call,\n",
		"json": `{"path":"Tank","node":"nsu=urn:m;s=tank","class":"object"}
{"path":"Tank.Level","node":"nsu=urn:m;s=level, left","class":"variable","type":"Double","unit":"mm","range":{"low":-0.5,"high":2000},"access":"read","description":"of the \u001b[2J tank"}
{"path":"Drain","node":"nsu=urn:m;s=drain","class":"method","access":"call"}
`,
	} {
		got, err := space.listed(t, browseFlags{depth: 5, format: format}, "")
		if err != nil || got != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", format, err, got, want)
		}
	}
	var n listedNode
	if got, err := space.listed(t, browseFlags{depth: 5, format: "json", filter: "level"}, ""); err != nil || json.Unmarshal([]byte(got), &n) != nil || n.Path != "Tank.Level" {
		t.Errorf("%v\n%s", err, got)
	}
	if got, err := space.listed(t, browseFlags{depth: 5, format: "table", filter: "flow"}, ""); err == nil || got != "" {
		t.Error(fmt.Sprint(err), got)
	}
}
