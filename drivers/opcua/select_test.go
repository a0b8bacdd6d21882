package opcua

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// selectAll follows the rule of the first group to its end.
func selectAll(t *testing.T, d drivers.Selector) (drivers.Selection, error) {
	t.Helper()
	for range 10_000 {
		if s, err := d.Select(t.Context(), drivers.Ref{}); s.Done || err != nil {
			return s, err
		}
	}
	t.Fatal("it never ends")
	return drivers.Selection{}, nil
}

func ruled(url string, options ...string) drivers.Connection {
	c := connection(url, time.Second)
	c.Devices[0].Groups[0].Options = map[string]string{"browse": "i=85"}
	for i := 0; i < len(options); i += 2 {
		c.Devices[0].Groups[0].Options[options[i]] = options[i+1]
	}
	return c
}

// tagNames returns the names of the tags that are selected.
func tagNames(s drivers.Selection) (all []string) {
	for _, t := range s.Tags {
		all = append(all, t.Name)
	}
	return all
}

// TestRule: a rule selects what it says, in an order of its own, with addresses that can be read, whatever the server's limit of nodes a request.
func TestRule(t *testing.T) {
	for _, limit := range []int{0, 1, 3} {
		s := start(t, opcuasim.Options{Browsable: true, MaxNodesPerBrowse: limit}, 0)
		s.AddMachineTree(time.Now())
		for _, c := range []struct {
			options []string
			want    string
		}{
			{nil, "Machine.Alarm.Active Machine.Axis.Position Machine.Beat Machine.Feed.Override Machine.Parts.Count Machine.Program.Name Machine.Spindle.Load Machine.Spindle.Speed Machine.State"},
			{[]string{"browse", "/Objects/2:Machine", "browse_include", "*speed, spindle.LOA?"}, "Spindle.Load Spindle.Speed"},
			{[]string{"browse", "/Objects/2:Machine", "browse_exclude", "Spindle, *.*o*"}, "Alarm.Active Beat Program.Name State"},
			{[]string{"browse", "nsu=urn:millrace:machine;s=Machine", "browse_depth", "1"}, "Beat State"},
			{[]string{"browse_types", "float32, STRING"}, "Machine.Program.Name Machine.Spindle.Load"},
			{[]string{"browse_types", "double"}, "Machine.Axis.Position Machine.Spindle.Speed"},
			{[]string{"browse", "ns=2;s=Spindle.Load", "browse_classes", "property"}, "EURange EngineeringUnits"},
			{[]string{"browse", "/Objects/2:Machine/2:Spindle", "browse_classes", "variable, property", "browse_exclude", "*units"}, "Load Load.EURange Speed Speed.EURange"},
		} {
			d := connect(t, ruled(s.Endpoint(), c.options...))
			got, err := selectAll(t, d)
			if found := strings.Join(tagNames(got), " "); err != nil || found != c.want || !got.Whole || got.Note != "" {
				t.Errorf("%v: %v\n%s\nwant\n%s\n%+v", c.options, err, found, c.want, got)
			}
			read := connection(s.Endpoint(), patience)
			read.Devices[0].Groups[0].Tags = got.Tags
			for _, r := range readAll(t, connect(t, read)) {
				if r != "" && !strings.Contains(r, "does not describe the structure") { // the simulated server's own properties
					t.Errorf("%v: %s", c.options, r)
				}
			}
		}
	}
}

// TestRuleSelectsNothing: it is said how many nodes there were, and which key of the rule has left out how many.
func TestRuleSelectsNothing(t *testing.T) {
	s := start(t, opcuasim.Options{Browsable: true}, 0)
	s.AddMachineTree(time.Now())
	for _, c := range []struct {
		options []string
		want    string
	}{
		{[]string{"browse_include", "*.Speeed", "browse_exclude", "Nothing, machine.SPIN*"},
			`of the 19 nodes below i=85 none is selected; left out: 1 node with all below by "machine.SPIN*" of browse_exclude; 7 variables such as "Machine.State" by browse_include (*.Speeed); 4 variables by browse_classes, for being properties`},
		{[]string{"browse_exclude", "Nothing, machine"}, `of the 2 nodes below i=85 none is selected; left out: 1 node with all below by "machine" of browse_exclude`},
		{[]string{"browse_types", "Guid"}, `of the 25 nodes below i=85 none is selected; left out: 9 variables of Int32, UInt32, Double by browse_types (Guid); 8 variables by browse_classes, for being properties`},
		{[]string{"browse_classes", "property", "browse_depth", "2"}, `of the 10 nodes below i=85 none is selected; left out: all below 6 nodes by browse_depth 2; 2 variables by browse_classes, for being no properties`},
		{[]string{"browse", "/Objects/2:Machine", "browse_exclude", "Beat, State", "browse_depth", "1"},
			`of the 8 nodes below /Objects/2:Machine none is selected; left out: 1 node with all below by "Beat" of browse_exclude; 1 node with all below by "State" of browse_exclude; all below 6 nodes by browse_depth 1`},
		{[]string{"browse", "/Objects/2:Machine/2:Spindle/2:Load"}, `of the 2 nodes below /Objects/2:Machine/2:Spindle/2:Load none is selected; left out: 2 variables by browse_classes, for being properties`},
		{[]string{"browse", "/Objects/2:Machine/2:State"}, `there is no node below /Objects/2:Machine/2:State`},
	} {
		got, err := selectAll(t, connect(t, ruled(s.Endpoint(), c.options...)))
		if err != nil || len(got.Tags) > 0 || !got.Whole || got.Note != c.want {
			t.Errorf("%v: %v\ngot  %s\nwant %s\n%+v", c.options, err, got.Note, c.want, got)
		}
	}
}

// readAll returns why each tag is bad.
func readAll(t *testing.T, d drivers.Driver) (reasons []string) {
	t.Helper()
	for _, r := range read(t, d) {
		reasons = append(reasons, r.Reason)
	}
	return reasons
}

// TestRuleKnown: a node that the group has already comes with the address that the config has, in whatever way that names it.
func TestRuleKnown(t *testing.T) {
	s := start(t, opcuasim.Options{Browsable: true}, 0)
	s.AddMachineTree(time.Now())
	c := ruled(s.Endpoint(), "browse", "/Objects/2:Machine/2:Spindle")
	for i, address := range []string{"/Objects/2:Machine/2:Spindle/2:Load", "ns=2;s=Spindle.Speed", "ns=2;s=None"} {
		c.Devices[0].Groups[0].Tags = append(c.Devices[0].Groups[0].Tags, telemetry.Tag{Name: fmt.Sprint(i), Address: address})
	}
	got, err := selectAll(t, connect(t, c))
	if err != nil || len(got.Tags) != 2 || got.Tags[0].Address != "/Objects/2:Machine/2:Spindle/2:Load" || got.Tags[1].Address != "ns=2;s=Spindle.Speed" {
		t.Errorf("%v %+v", err, got)
	}
}

// TestRuleBounds: what is more than a rule may have is left out and said, and so is a root that is not there.
func TestRuleBounds(t *testing.T) {
	s := start(t, opcuasim.Options{Browsable: true}, 250)
	got, err := selectAll(t, connect(t, ruled(s.Endpoint(), "browse_max", "120")))
	if err != nil || len(got.Tags) != 120 || got.Whole || got.Most != 120 || !strings.Contains(got.Note, "more than 120 tags") || got.Cut != "selects more than 120 tags, and the rest is left out" || !strings.Contains(got.Mend, "browse_max") {
		t.Errorf("%v: %d tags, %s", err, len(got.Tags), got.Note)
	}
	got, err = selectAll(t, connect(t, ruled(s.Endpoint(), "browse_max", "253")))
	if err != nil || len(got.Tags) != 253 || !got.Whole || got.Cut != "" { // three are the server's own
		t.Errorf("%v: %d tags, %s", err, len(got.Tags), got.Note)
	}
	for root, want := range map[string]string{"ns=2;s=none": "BadNodeIdUnknown", "nsu=urn:none;s=x": "no namespace", "/Objects/2:None": "the browse path ends at"} {
		d := connect(t, ruled(s.Endpoint(), "browse", root))
		if _, err := selectAll(t, d); err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, drivers.ErrLink) {
			t.Errorf("root %s: %v, want %s", root, err, want)
		}
	}
	d := connect(t, ruled(s.Endpoint()))
	s.Close()
	if _, err := d.Select(context.Background(), drivers.Ref{}); !errors.Is(err, drivers.ErrLink) {
		t.Errorf("without a server: %v", err)
	}
}

// TestRuleUnmet: a pattern that has no effect is said, where another one selects something, and one that another one covers has some.
func TestRuleUnmet(t *testing.T) {
	s := start(t, opcuasim.Options{Browsable: true}, 0)
	s.AddMachineTree(time.Now())
	got, err := selectAll(t, connect(t, ruled(s.Endpoint(), "browse", "/Objects/2:Machine", "browse_include", "*.Speed, Spindle.S*, Lin3.*", "browse_exclude", "Diag, Axis")))
	if want := `nothing that was looked at is like "lin3.*" of browse_include; nothing that was looked at is like "diag" of browse_exclude`; err != nil || got.Note != want || len(got.Tags) != 1 || got.Cut != "" {
		t.Errorf("%v %+v", err, got)
	}
}

// TestAstray: check says of a browse path that begins at another node than OPC UA has in the Root folder.
func TestAstray(t *testing.T) {
	for path, want := range map[string]string{"/2:Plant/2:Line1": `browse "/2:Plant/2:Line1" begins at the Root folder, which has Objects, Types and Views; is "/Objects/2:Plant/2:Line1" meant?`, "/Objects/2:Plant": "", "ns=2;s=/Plant": ""} {
		d, err := newDriver(ruled("opc.tcp://h", "browse", path))
		if err != nil {
			t.Fatal(err)
		}
		lines := d.(drivers.Planner).Plan(drivers.Ref{})
		if last := lines[len(lines)-1]; want != "" && last != want || want == "" && strings.Contains(last, "Root folder") {
			t.Errorf("%s: %q", path, lines)
		}
	}
	d, err := newDriver(connection("opc.tcp://h", time.Second, "/Objects/2:a", "/Plant"))
	if lines := d.(drivers.Planner).Plan(drivers.Ref{}); err != nil || !strings.Contains(lines[len(lines)-1], `the address "/Plant" begins at the Root folder`) {
		t.Errorf("%v %q", err, lines)
	}
}

// TestRuleWords: each mistake of a rule is told with what to do, and a rule says what it selects.
func TestRuleWords(t *testing.T) {
	for _, c := range []struct {
		options []string
		want    string
	}{
		{[]string{"browse", "Objects/Machine"}, `browse "Objects/Machine": no identifier`},
		{[]string{"browse", "Plant/3:Line1"}, `a browse path begins at the Root folder, and each name has its namespace index, such as "/Objects/2:Plant/3:Line1"; for a text identifier use "ns=2;s=Plant/3:Line1"`},
		{[]string{"browse", "", "browse_depth", "3"}, "browse is empty"},
		{[]string{"browse_depth", ""}, `browse_depth "" is not a number`},
		{[]string{"browse_depth", "0"}, `browse_depth "0" is not a number from 1 to 32`},
		{[]string{"browse_max", "20001"}, `browse_max "20001" is not a number from 1 to 20000`},
		{[]string{"browse_include", " , "}, "browse_include names nothing"},
		{[]string{"browse_include", ""}, "browse_include names nothing"},
		{[]string{"browse_exclude", "*.Speed,,"}, `browse_exclude "*.Speed,," has an empty entry`},
		{[]string{"browse_types", "Double, Floot64"}, `browse_types "Floot64" is not known`},
		{[]string{"browse_types", "json"}, `browse_types "json" is not known; use the types of tags (bool, int8,`},
		{[]string{"browse_classes", "variable, Method"}, `browse_classes "Method" is not known`},
		{[]string{"browse_types", strings.Repeat("double,", 65)}, "browse_types has 65 entries"},
	} {
		_, err := newDriver(ruled("opc.tcp://h", c.options...))
		if err == nil || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%v: %v, want %s", c.options, err, c.want)
		}
	}
	for _, types := range []string{"bool, time, string", "Boolean,GUID", "UtcTime, Duration, localeid, Range, EUInformation, ServerState, structure"} {
		if _, err := newDriver(ruled("opc.tcp://h", "browse_types", types)); err != nil {
			t.Errorf("%s: %v", types, err)
		}
	}
	without := ruled("opc.tcp://h", "browse_include", "x")
	delete(without.Devices[0].Groups[0].Options, "browse")
	if _, err := newDriver(without); err == nil || !strings.Contains(err.Error(), "browse_include is given without browse") {
		t.Error(err)
	}
	d, err := newDriver(ruled("opc.tcp://h", "browse_types", "Int32, double", "browse_include", "A.*,*.b", "browse_exclude", "B", "browse_classes", "property,variable"))
	want := "select variables and properties up to 5 levels below i=85 of type Int32, double whose path is like A.*, *.b and not like B: 1000 tags at most, found at each connect"
	if err != nil || d.(drivers.Planner).Plan(drivers.Ref{})[0] != want {
		t.Errorf("%v %v", err, d.(drivers.Planner).Plan(drivers.Ref{}))
	}
}

// TestMatches compares patterns with texts.
func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"a", "a", true}, {"?", "ä", true}, {"?", "", false}, {"a*c", "abbc", true}, {"a*c", "abcb", false},
		{"*.b.*", "a.b.c.b.d", true}, {"**a", "bba", true}, {"a*", "a", true}, {"*a*b*c*", "xaxbx", false}, {"a?c", "abc", true},
	} {
		if got := matches(c.pattern, c.text); got != c.want {
			t.Errorf("%q like %q: %v", c.text, c.pattern, got)
		}
	}
}

// TestModelChange: each connect, and each event that says so, moves Models on; other events do not.
func TestModelChange(t *testing.T) {
	t.Parallel()
	s := start(t, opcuasim.Options{Browsable: true}, 1)
	m := s.AddMachineTree(time.Now())
	d := connect(t, ruled(s.Endpoint()))
	if pushed, err := d.Subscribe(t.Context(), drivers.Ref{}); !pushed || err != nil {
		t.Fatal(pushed, err)
	}
	pushes := d.Pushed()
	before := d.Models()
	moves := func(what string, moved bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			select {
			case p := <-pushes:
				if p.Err != nil {
					t.Fatal(p.Err)
				}
			default:
			}
			if d.Models() != before {
				break
			}
		}
		if (d.Models() != before) != moved {
			t.Errorf("%s: it was %d, and is %d", what, before, d.Models())
		}
		before = d.Models()
	}
	m.Step(time.Now())
	s.Raise(opcuasim.Event{Source: "Machine", Severity: 1000})
	s.ModelChanged()
	moves("a change", true)
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	moves("a connect", true)
}

// TestModelsUnheard: where the server cannot say that its nodes have changed, it is looked for now and then while it is connected.
func TestModelsUnheard(t *testing.T) {
	for name, c := range map[string]struct {
		o     opcuasim.Options
		mode  string
		heard bool
	}{
		"subscribed":    {opcuasim.Options{Browsable: true}, "subscribe", true},
		"polled":        {opcuasim.Options{Browsable: true}, "read", false},
		"none to spare": {opcuasim.Options{Browsable: true, MaxSubscriptions: 1}, "subscribe", false},
	} {
		s := start(t, c.o, 1)
		s.AddMachineTree(time.Now()) // which has events
		conn := ruled(s.Endpoint())
		conn.Devices[0].Options["mode"] = c.mode
		d := connect(t, conn)
		if _, err := d.Subscribe(t.Context(), drivers.Ref{}); err != nil {
			t.Fatal(err)
		}
		if heard := d.deaf.Load() == nil; heard != c.heard {
			t.Errorf("%s: heard: %v", name, heard)
		}
		seen := map[uint64]bool{}
		for i := range 3 {
			if !c.heard {
				since := time.Now().Add(-time.Duration(i)*modelsEvery - time.Second)
				d.deaf.Store(&since)
				seen[d.Models()] = true
			}
		}
		d.Close()
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if seen[d.Models()] || len(seen) != 3 && !c.heard {
			t.Errorf("%s: %d after %v", name, d.Models(), seen)
		}
	}
}

// FuzzModelChange: whatever a server tells as a change of its nodes costs a bounded amount.
func FuzzModelChange(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x11\x01\x00\x55\x08"))
	f.Add([]byte("\xff\xff\xff\x7f\x00\x00\x00\x00\xff\xff\xff\x7f\x11"))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := allocated()
		r := reader{Reader: wire.Reader{B: b}}
		r.tellsModel()
		if got := allocated() - before; got > mayAllocate(len(b)) {
			t.Fatalf("%d bytes cost %d", len(b), got)
		}
	})
}

// still returns the names of the tags that do not come while the test runs.
func still(s drivers.Selection) []string {
	return slices.DeleteFunc(tagNames(s), func(name string) bool { return strings.HasPrefix(name, "Grown") })
}

// TestNodeOPCUARule follows a rule through node-opcua, in answers of three references that are gone on with.
func TestNodeOPCUARule(t *testing.T) {
	t.Parallel()
	url := nodeOPCUA(t, "growing")
	c := ruled(url, "browse", "ns=1;s=Interop")
	c.Devices[0].Timeout = 10 * time.Second
	d := connect(t, c)
	at := d.Models()
	whole, err := selectAll(t, d)
	if err != nil || !whole.Whole || !slices.Contains(tagNames(whole), "Double") {
		t.Fatalf("%v %+v", err, whole)
	}
	g := &d.groups[0][0]
	spaces, err := d.namespaces(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.walk = newWalk(g.rule, spaces)
	g.walk.each = 3
	if small, err := selectAll(t, d); err != nil || !slices.Equal(still(small), still(whole)) {
		t.Errorf("%v: in answers of three %v\nat once %v", err, still(small), still(whole))
	}
	if pushed, err := d.Subscribe(t.Context(), drivers.Ref{}); !pushed || err != nil || d.feed.models == nil {
		t.Fatal(pushed, err)
	}
	pushes := d.Pushed()
	for deadline := time.Now().Add(30 * time.Second); d.Models() == at; time.Sleep(10 * time.Millisecond) {
		select {
		case p := <-pushes:
			if p.Err != nil {
				t.Fatal(p.Err)
			}
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("node-opcua's model has changed, and that was not noticed")
		}
	}
	if again, err := selectAll(t, d); err != nil || len(again.Tags) <= len(whole.Tags) {
		t.Errorf("%v: %d tags, and %d before", err, len(again.Tags), len(whole.Tags))
	}
}
