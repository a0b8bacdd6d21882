package opcua

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/opcuasim"
)

// TestServerIsChanged: what has become of the nodes and the namespaces is said once, after the connect that finds it.
func TestServerIsChanged(t *testing.T) {
	var types atomic.Pointer[map[string]*ua.NodeID]
	types.Store(&map[string]*ua.NodeID{"ns=2;s=v0": ua.NewTwoByteNodeID(11), "ns=2;s=v1": ua.NewTwoByteNodeID(11), "ns=2;s=v2": ua.NewNumericNodeID(2, 3001), "ns=2;s=v3": ua.NewTwoByteNodeID(6)})
	refuse := atomic.Uint32{}
	s := start(t, opcuasim.Options{MaxNodesPerRead: 2, HideLimit: true, Attribute: func(node string, a ua.AttributeID) any {
		if n := (*types.Load())[node]; n != nil && a == ua.AttributeIDDataType {
			return n
		}
		return nil
	}, OnRead: func([]string) uint32 { return refuse.Load() }}, 4)
	s.AddPath("/Objects/2:Machine/2:Speed", "", constant(0))
	d := connect(t, polled(connection(s.Endpoint(), 5*time.Second, append(variables(5), "/Objects/2:Machine/2:Speed", "nsu=urn:millrace:machine;s=v0")...)))
	again := func(want string) {
		t.Helper()
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := d.Warning(); got != want && !(want != "" && strings.HasSuffix(got, ": "+want)) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		if got := d.Warning(); got != "" {
			t.Errorf("said twice: %q", got)
		}
	}
	if got := d.Warning(); got != "" {
		t.Errorf("at the first connect: %q", got)
	}
	again("")
	types.Store(&map[string]*ua.NodeID{"ns=2;s=v0": ua.NewTwoByteNodeID(11), "ns=2;s=v1": ua.NewTwoByteNodeID(6), "ns=2;s=v2": ua.NewNumericNodeID(2, 3001), "ns=2;s=v3": ua.NewTwoByteNodeID(6)})
	again(`node "ns=2;s=v1" (Int32, and was Double) is of another data type`)
	s.RemovePath("/Objects/2:Machine")
	again(`node "/Objects/2:Machine/2:Speed" is gone`)
	s.AddVariable("v4", constant(4))
	s.AddPath("/Objects/2:Machine/2:Speed", "", constant(0))
	again(`2 nodes are there again, such as "ns=2;s=v4"`)
	s.SetNamespaces("urn:other")
	again(`namespace 2 is "urn:other" now, and was "urn:millrace:machine": addresses with this index may mean other nodes; write nsu= instead; ` +
		`3 nodes are gone, such as "ns=2;s=v4"; node "ns=2;s=v2" (nsu=urn:other;i=3001, and was nsu=urn:millrace:machine;i=3001) is of another data type`)
	refuse.Store(0x80020000) // BadInternalError: nothing can be read, which is no news
	again("")
	s.SetNamespaces(machineURI)
	again("")
	refuse.Store(0)
	again(`namespace 2 is "urn:millrace:machine" now, and was "urn:other": addresses with this index may mean other nodes; write nsu= instead; ` +
		`3 nodes are there again, such as "ns=2;s=v4"; node "ns=2;s=v2" (nsu=urn:millrace:machine;i=3001, and was nsu=urn:other;i=3001) is of another data type`)
}

// FuzzTypeName: whatever a server answers, what is kept of it is bounded.
func FuzzTypeName(f *testing.F) {
	f.Add([]byte("\x01\x11\x00\x0b"))
	f.Add([]byte("\x01\x11\x03\x02\x00\x03\x00\x00\x00abc"))
	f.Add([]byte("\x02\x00\x00\x34\x80"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReader(b)
		v := r.DataValue(0)
		seen := map[string]string{}
		if name := typeName(&v, []string{"", "urn:a"}, seen); name == "" || len(name) > maxTypeName || len(seen) > 1 {
			t.Errorf("%q, %d kept", name, len(seen))
		}
	})
}

// TestCensusIsGivenUp where the server drops the connection for it.
func TestCensusIsGivenUp(t *testing.T) {
	t.Parallel()
	var s *opcuasim.Server
	var hurt atomic.Bool
	s = start(t, opcuasim.Options{Attribute: func(_ string, a ua.AttributeID) any {
		if a == ua.AttributeIDDataType {
			hurt.Store(true)
			s.SetSilent(true)
		}
		return nil
	}}, 3)
	made, err := newDriver(polled(connection(s.Endpoint(), brief, variables(3)...)))
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	for i := range maxFailures {
		s.SetSilent(false)
		if err := made.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "look for what has changed: no answer") {
			t.Fatalf("connect %d: %v", i, err)
		}
	}
	s.SetSilent(false)
	hurt.Store(false)
	if err := made.Connect(t.Context()); err != nil || hurt.Load() {
		t.Fatalf("after %d attempts: %v; asked again: %t", maxFailures, err, hurt.Load())
	}
	wantNumbers(t, read(t, made), nil)
}
