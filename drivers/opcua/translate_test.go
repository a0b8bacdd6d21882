package opcua

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

func constant(n float64) func() any { return func() any { return n } }

// machinery has a few nodes by browse path.
func machinery(t *testing.T, o opcuasim.Options) *opcuasim.Server {
	o.Browsable = true
	s := start(t, o, 0)
	s.AddPath("/Objects/2:Machine/2:Speed", "", constant(0))
	s.AddPath("/Objects/2:Machine/2:Axis.1/2:Position", "", constant(1))
	s.AddPath("/Objects/1:Server notes", "", constant(2))
	for i := range 8 {
		s.AddPath(fmt.Sprintf("/Objects/2:Machine/2:Other%d", i), "", constant(0))
	}
	return s
}

func polled(c drivers.Connection) drivers.Connection {
	c.Devices[0].Options["mode"] = "read"
	return c
}

// TestPathsAreRead: tags by browse path are read; what leads nowhere is bad in words, and the others are none the worse.
func TestPathsAreRead(t *testing.T) {
	for name, o := range map[string]opcuasim.Options{"": {}, "limit": {MaxPathsPerCall: 1}, "hidden limit": {MaxPathsPerCall: 2, HideLimit: true}} {
		t.Run(name, func(t *testing.T) {
			s := machinery(t, o)
			s.AddPath("/Objects/2:Machine/2:Twice", "s=first", constant(0))
			s.AddPath("/Objects/2:Machine/2:Twice", "s=second", constant(0))
			d := connect(t, polled(connection(s.Endpoint(), patience,
				"/Objects/2:Machine/2:Speed",
				"/Objects/nsu=urn:millrace:machine;Machine/2:Axis.1/2:Position",
				"/0:Objects/1:Server notes",
				"/Objects/3:Machine/2:Speed",
				"/Objects/2:Machine/2:speed",
				"/Objects/2:Machine/2:Axis.1/2:Speed/2:x",
				"/2:Machine",
				"/Objects/nsu=urn:gone;Machine",
				"/Objects/2:Machine/2:Twice",
				"/Objects/2:Machine/2:Speed/2:x",
				"/Objects/nsu=urn:millrace:machine;Machines/2:Speed",
				"/Objects/nsu=urn:millrace:machine;Machines/2:Position",
			)))
			readings := read(t, d)
			wantNumbers(t, readings, map[int]string{
				3:  `the browse path ends at "3:Machine"; below "/Objects" are "2:Machine", "1:Server notes"`,
				4:  `the browse path ends at "2:speed"; below "/Objects/2:Machine" are "2:Speed", "2:Axis.1", "2:Other0", "2:Other1", "2:Other2" and 6 more`,
				5:  `the browse path ends at "2:Speed"; below "/Objects/2:Machine/2:Axis.1" are "2:Position"`,
				6:  `the browse path ends at "2:Machine"; below "/" are "Objects", "Types", "Views"`,
				7:  `the server has no namespace "urn:gone"`,
				8:  `the browse path leads to several nodes: ns=2;s=first, ns=2;s=second; use the node id of one`,
				9:  `the browse path ends at "2:x"; below "/Objects/2:Machine/2:Speed" is nothing`,
				10: `the browse path ends at "nsu=urn:millrace:machine;Machines"; below "/Objects" are "nsu=urn:millrace:machine;Machine", "nsu=urn:millrace:opcuasim;Server notes"`,
				11: `the browse path ends at "nsu=urn:millrace:machine;Machines"; below "/Objects" are "nsu=urn:millrace:machine;Machine"`,
			})
		})
	}
}

// TestPathFollowsTheServer: at the next connect the same path leads to the node that is there then, whatever its index.
func TestPathFollowsTheServer(t *testing.T) {
	s := machinery(t, opcuasim.Options{})
	d := connect(t, polled(connection(s.Endpoint(), patience, "/Objects/nsu=urn:millrace:machine;Machine/nsu=urn:millrace:machine;Speed")))
	wantNumbers(t, read(t, d), nil)
	s.SetNamespaces("urn:other", machineURI)
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, read(t, d), nil)
	s.RemovePath("/Objects/2:Machine/2:Speed")
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, read(t, d), map[int]string{0: `ends at "nsu=urn:millrace:machine;Speed"`})
}

// TestLostPathsAreTriedAgain, slowly, polled and subscribed.
func TestLostPathsAreTriedAgain(t *testing.T) {
	paths := []string{"/Objects/2:Machine/2:Late", "/Objects/2:Machine/2:Later"}
	t.Run("polled", func(t *testing.T) {
		s := machinery(t, opcuasim.Options{})
		d := connect(t, polled(connection(s.Endpoint(), patience, paths...)))
		wantNumbers(t, read(t, d), map[int]string{0: "ends at", 1: "ends at"})
		s.AddPath(paths[0], "", constant(0))
		wantNumbers(t, read(t, d), map[int]string{0: "ends at", 1: "ends at"})
		d.groups[0][0].ask.search = time.Now()
		wantNumbers(t, read(t, d), map[int]string{1: "ends at"})
		s.AddPath(paths[1], "", constant(1))
		d.groups[0][0].ask.search = time.Now()
		wantNumbers(t, read(t, d), nil)
	})
	t.Run("subscribed", func(t *testing.T) {
		s := machinery(t, opcuasim.Options{})
		c := connection(s.Endpoint(), patience, append(paths, "/Objects/2:Machine/2:Speed")...)
		c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
		d := connect(t, c)
		if pushed, err := d.Subscribe(t.Context(), drivers.Ref{}); !pushed || err != nil {
			t.Fatal(pushed, err)
		}
		s.AddPath(paths[0], "", constant(0))
		for _, sub := range d.feed.subs {
			sub.members[0].retry = time.Now()
		}
		last := map[uint32]telemetry.Reading{}
		timeout := time.After(30 * time.Second)
		for pushes := d.Pushed(); last[0].Value.Kind == 0 || last[2].Value.Kind == 0; {
			select {
			case p := <-pushes:
				if p.Err != nil {
					t.Fatal(p.Err)
				}
				for _, r := range p.Readings {
					last[r.Tag] = r
				}
			case <-timeout:
				t.Fatalf("%+v", last)
			}
		}
		if r := last[1]; !strings.Contains(r.Reason, `ends at "2:Later"`) {
			t.Errorf("%+v", r)
		}
	})
}

// TestManyPaths: a thousand paths of which most lead nowhere take few requests, and only so many ends are looked for.
func TestManyPaths(t *testing.T) {
	s := machinery(t, opcuasim.Options{MaxPathsPerCall: 300})
	var paths []string
	for i := range 1000 {
		paths = append(paths, fmt.Sprintf("/Objects/2:Machine/2:Nothing%d", i))
	}
	d := connect(t, polled(connection(s.Endpoint(), 5*time.Second, append(paths, "/Objects/2:Machine/2:Speed")...)))
	readings, ends, plain := read(t, d), 0, 0
	if readings[1000].Quality != telemetry.Good {
		t.Errorf("%+v", readings[1000])
	}
	for _, r := range readings[:1000] {
		switch {
		case strings.Contains(r.Reason, "ends at"):
			ends++
		case r.Reason == "the browse path leads to no node":
			plain++
		}
	}
	s.AddPath(paths[999], "", constant(0))
	for range 4 { // 300 at a time
		d.groups[0][0].ask.search = time.Now()
		readings = read(t, d)
	}
	if readings[999].Quality != telemetry.Good {
		t.Errorf("the last of a thousand is never tried again: %+v", readings[999])
	}
	for i := range paths {
		paths[i] = fmt.Sprintf("/Objects/2:Machines/2:Tag%d", i)
	}
	for i, r := range read(t, connect(t, polled(connection(s.Endpoint(), 5*time.Second, paths...)))) {
		if !strings.Contains(r.Reason, `ends at "2:Machines"`) {
			t.Fatalf("tag %d of those with the same end: %q", i, r.Reason)
		}
	}
	if ends != maxExplained || ends+plain != 1000 {
		t.Errorf("%d with the end, %d without", ends, plain)
	}
}

// TestBrowseByPath starts a walk at a browse path.
func TestBrowseByPath(t *testing.T) {
	s := machinery(t, opcuasim.Options{})
	d := connect(t, polled(connection(s.Endpoint(), patience, "i=2258")))
	var names []string
	for n, err := range d.Browse(t.Context(), "/Objects/2:Machine/2:Axis.1") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, n.Name)
	}
	if len(names) != 1 || names[0] != "Position" {
		t.Errorf("%q", names)
	}
	for parent, want := range map[string]string{"/Objects/2:Nothing": `ends at "2:Nothing"`, "/Objects/2:": "has no name", "/Objects/nsu=urn:gone;x": "no namespace"} {
		for _, err := range d.Browse(t.Context(), parent) {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("browse %s: %v, want %s", parent, err, want)
			}
		}
	}
}

// TestTargets: a node that is reached in two ways is one, and one of another server is none.
func TestTargets(t *testing.T) {
	const all, none = "\xff\xff\xff\xff", "\x00\x00\x6f\x80"
	for in, want := range map[string]target{
		"\x00\x00\x00\x00\x02\x00\x00\x00\x00\x05" + all + "\x00\x05" + all:           {node: []byte{0, 5}},
		"\x00\x00\x00\x00\x02\x00\x00\x00\x00\x05" + all + "\x00\x06\x01\x00\x00\x00": {node: []byte{0, 5}},
		"\x00\x00\x00\x00\x02\x00\x00\x00\x00\x05" + all + "\x00\x06" + all:           {reason: "the browse path leads to several nodes: i=5, i=6; use the node id of one"},
		"\x00\x00\x00\x00\x01\x00\x00\x00\x40\x05\x01\x00\x00\x00" + all:              {reason: "the browse path leads to another server; give that server a device of its own"},
		"\x00\x00\x00\x00\x01\x00\x00\x00\x81\x00\x05\x00\x05\x00\x00\x00urn:a" + all: {node: []byte{1, 1, 5, 0}},
		none + all:               {},
		"\x00\x00\x1f\x80" + all: {reason: "the browse path leads nowhere: " + statusText(ua.StatusBadUserAccessDenied)},
	} {
		r := reader{Reader: wire.Reader{B: []byte(in)}}
		if got := r.target([]string{"", "urn:a"}); r.Err != nil || got.reason != want.reason || !bytes.Equal(got.node, want.node) {
			t.Errorf("%q: %v, %q % x, want %q % x", in, r.Err, got.reason, got.node, want.reason, want.node)
		}
	}
}

// TestPathRequests holds our bytes against the library's.
func TestPathRequests(t *testing.T) {
	value, err := valueOf(ua.NewTwoByteNodeID(7))
	if err != nil || !bytes.Equal(value, attributeOf([]byte{0, 7}, ua.AttributeIDValue)) {
		t.Errorf("%v: % x", err, value)
	}
	path, m := parsePath("/Objects/nsu=urn:a;M")
	if m != nil {
		t.Fatal(m)
	}
	got, reason := (&finder{names: []string{"", "urn:a"}}).encodePath(path)
	element := func(ns uint16, name string) *ua.RelativePathElement {
		return &ua.RelativePathElement{ReferenceTypeID: ua.NewTwoByteNodeID(33), IncludeSubtypes: true, TargetName: &ua.QualifiedName{NamespaceIndex: ns, Name: name}}
	}
	want, err := ua.Encode(&ua.BrowsePath{StartingNode: ua.NewTwoByteNodeID(84), RelativePath: &ua.RelativePath{Elements: []*ua.RelativePathElement{element(0, "Objects"), element(1, "M")}}})
	if err != nil || reason != "" || !bytes.Equal(got, want) {
		t.Errorf("%v %s\ngot  % x\nwant % x", err, reason, got, want)
	}
	got, _ = encodeBrowseNext([]byte("point"), true)(nil)
	want, err = ua.Encode(struct {
		Release bool
		Points  [][]byte
	}{true, [][]byte{[]byte("point")}})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v: got  % x\nwant % x", err, got, want)
	}
}

// TestNodeOPCUAPaths reads from node-opcua by browse path.
func TestNodeOPCUAPaths(t *testing.T) {
	url := nodeOPCUA(t)
	d := connect(t, polled(connection(url, 10*time.Second, "/Objects/1:Interop/1:Double", "/Objects/Server/ServerStatus/CurrentTime", "/Objects/1:Interop/1:double", "/Objects/2:Interop")))
	r := read(t, d)
	if r[0].Value != telemetry.Float64(2.718281828459045) || r[1].Value.Kind != telemetry.KindTime {
		t.Errorf("%+v", r[:2])
	}
	if !strings.Contains(r[2].Reason, `ends at "1:double"; below "/Objects/1:Interop" are "1:Double", "`) || !strings.Contains(r[3].Reason, `below "/Objects" are "1:Interop"`) {
		t.Errorf("%q\n%q", r[2].Reason, r[3].Reason)
	}
}

// FuzzTarget: whatever a server answers to a browse path, what comes of it is bounded, and a node id that can be sent.
func FuzzTarget(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02\x00\x00\x00\x03\x02\x00\x01\x00\x00\x00a\xff\xff\xff\xff\x00\x05\xff\xff\xff\xff"))
	f.Add([]byte("\x00\x00\x00\x00\x01\x00\x00\x00\x81\x00\x05\x00\x05\x00\x00\x00urn:a\xff\xff\xff\xff"))
	f.Add([]byte("\x00\x00\x6f\x80\xff\xff\xff\xff"))
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00pt\x01\x00\x00\x00\x00\x23\x01\x01\x01\x05\x00\x00\x00\x01\x00\x00\x00a\x02\x01\x00\x00\x00b\x02\x00\x00\x00\x00\x3f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := reader{Reader: wire.Reader{B: b}}
		if got := r.target([]string{"", "urn:a"}); got.node != nil {
			if n := (&reader{Reader: wire.Reader{B: got.node}}); len(got.node) > maxIdentifier+16 || n.NodeID().Server != 0 || n.Err != nil || len(n.B) > 0 {
				t.Errorf("% x is no node id", got.node)
			}
		}
		r = reader{Reader: wire.Reader{B: b}}
		names, more := r.browseNames()
		if len(names) > maxBrowsed || len(more) > len(b) {
			t.Errorf("%d names, a point of %d bytes", len(names), len(more))
		}
	})
}
