package opcua

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// moving is a driver of a server whose namespaces move.
type moving struct {
	*driver
	t *testing.T
	s *opcuasim.Server
	c drivers.Connection
}

func newMoving(t *testing.T) *moving {
	t.Helper()
	s := start(t, opcuasim.Options{Namespaces: []string{machineURI, "urn:more"}}, 2)
	s.AddNode("urn:more", "s=v0", func() any { return int32(7) }) // another of the same name
	m := &moving{t: t, s: s, c: polled(connection(s.Endpoint(), 5*time.Second, "ns=2;s=v0", "/Objects/2:Machine", "nsu=urn:more;s=v1", "i=2258"))}
	m.restored(nil)
	m.again("")
	return m
}

// restored makes another driver, which is given what one before has learned.
func (m *moving) restored(from map[string]string) {
	m.t.Helper()
	made, err := newDriver(m.c)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { made.Close() })
	m.driver = made.(*driver)
	if err := m.Restore(0, from); err != nil {
		m.t.Fatal(err)
	}
}

// again connects, after which this has changed.
func (m *moving) again(want string) {
	m.t.Helper()
	if err := m.Connect(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	change := m.Changed()
	if got := change.What; !strings.HasSuffix(got, want) || (want == "") != (got == "") || (got == "") != change.Since.IsZero() || (got == "") != (change.Mend == "") {
		m.t.Errorf("got  %+v\nwant %q", change, want)
	}
}

// marks reads the first tags, of which so many are marked, if they can be read at all.
func (m *moving) marks(want int) {
	m.t.Helper()
	readings, err := m.Read(m.t.Context(), drivers.Ref{}, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for i, r := range readings {
		if r.Quality == telemetry.Bad {
			continue
		}
		if got := strings.HasPrefix(r.Reason, "namespace 2 of its address was "); got != (i < want) || got != (r.Quality == telemetry.Uncertain) {
			m.t.Errorf("tag %d is %s: %q", i, r.Quality, r.Reason)
		}
	}
}

func (m *moving) learns(want string) {
	m.t.Helper()
	if got := m.Learned(0)[namespacesOption]; got != want {
		m.t.Errorf("learned %q, want %q", got, want)
	}
}

const (
	movedWords = `namespace 2 is "urn:more" now, and was "urn:millrace:machine"`
	asItWas    = "2=" + machineURI
)

// TestNamespaceMoved: that an index of the addresses stands for another namespace stands until somebody accepts it, the server has it back, or it is forgotten.
func TestNamespaceMoved(t *testing.T) {
	m := newMoving(t)
	m.again("")
	m.marks(0)
	m.s.SetNamespaces("urn:more", machineURI)
	m.again(movedWords)
	m.marks(1)
	since := m.Changed().Since
	m.again(movedWords)
	if got := m.Changed().Since; !got.Equal(since) {
		t.Errorf("since %v, and then since %v", since, got)
	}
	m.s.SetNamespaces(machineURI)
	m.again("")
	m.s.SetNamespaces()
	m.again(`namespace 2 does not exist now, and was "urn:millrace:machine"`)
	m.learns(asItWas)
	m.s.SetNamespaces("urn:more")
	m.again(movedWords)
	m.Accept()
	m.marks(0)
	m.learns("2=urn:more")
	m.again("")
	m.s.SetNamespaces(machineURI)
	m.again(`namespace 2 is "urn:millrace:machine" now, and was "urn:more"`)
	m.Forget(0)
	m.learns("")
	m.again("")
	m.learns(asItWas)
}

// TestNamespaceMovedMeanwhile: what an index stood for outlasts the driver, and the config may say it.
func TestNamespaceMovedMeanwhile(t *testing.T) {
	m := newMoving(t)
	learned := m.Learned(0)
	m.s.SetNamespaces("urn:more")
	m.restored(learned)
	m.learns(asItWas)
	m.again(movedWords)
	m.restored(nil)
	m.again("")
	m.learns("2=urn:more")
	m.c.Devices[0].Options[namespacesOption] = asItWas + " 9=urn:unused"
	m.restored(nil)
	m.again(movedWords)
	m.learns("")
	m.Accept()
	m.again("")
	m.learns("2=urn:more")
	delete(m.c.Devices[0].Options, namespacesOption)
	m.s.SetNamespaces("urn:with a space", strings.Repeat("x", 1000))
	m.restored(nil)
	m.spaces.used = []uint16{2, 3}
	m.again("")
	m.learns("3=" + strings.Repeat("x", maxURI))
}

var _ = []any{drivers.Comparer((*driver)(nil)), drivers.Learner((*driver)(nil))}

// TestNamespacesOption: what can be learned can be read again, and nothing else; only what addresses use is kept, within a bound.
func TestNamespacesOption(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "map[]",
		" 2=urn:a  3=urn:b?c=d ":        "map[2:urn:a 3:urn:b?c=d]",
		"0=urn:a":                       "",
		"2":                             "",
		"2=":                            "",
		"x=urn:a":                       "",
		"65536=urn:a":                   "",
		"2=" + strings.Repeat("x", 257): "",
		"2=urn:a, 3":                    "",
	} {
		got, wrong := parseNamespaces(text)
		if (wrong == "") != (want != "") || wrong == "" && fmt.Sprint(got) != want {
			t.Errorf("%.40q: %v, %s", text, got, wrong)
		}
	}
	var many []string
	for i := range 2 * maxIndexes {
		many = append(many, fmt.Sprintf("ns=%d;s=x", i))
	}
	_, groups, err := parse(connection("opc.tcp://h", time.Second, many...))
	if used := indexesOf(groups); err != nil || len(used) != maxIndexes || used[0] != 1 {
		t.Errorf("%d indexes, %v", len(used), err)
	}
}

// TestNamespaceMovedBelowRule: where a rule begins at an index that stands for another namespace, with a node of the same name, none of its nodes becomes a tag until that is accepted,
// or the server is as it was; so also where the server renumbers within a session, and after a restart of the gateway.
func TestNamespaceMovedBelowRule(t *testing.T) {
	for _, root := range []string{"ns=2;s=Machine", "/Objects/2:Machine"} {
		s := start(t, opcuasim.Options{Browsable: true, Namespaces: []string{machineURI, "urn:more"}}, 0)
		s.AddMachineTree(time.Now())
		s.AddNode("urn:more", "s=Machine", func() any { return int32(7) })
		c := ruled(s.Endpoint(), "browse", root)
		c.Devices[0].Groups[0].Tags = nil
		m := &moving{t: t, s: s, c: c}
		m.restored(nil)
		m.again("")
		selects := func(wrong string) {
			t.Helper()
			if got, err := selectAll(t, m); wrong == "" && (err != nil || len(got.Tags) == 0) || wrong != "" && (!strings.Contains(fmt.Sprint(err), wrong) || errors.Is(err, drivers.ErrLink)) {
				t.Errorf("root %s: %d tags, %v; want %q", root, len(got.Tags), err, wrong)
			}
		}
		selects("")
		m.learns(asItWas)
		const strays = `was "urn:millrace:machine" when the server was first reached, and is not any more: the tags stay as they were`
		s.SetNamespaces("urn:more", machineURI)
		selects(strays) // within the session
		m.again(movedWords)
		selects(strays)
		m.restored(m.Learned(0))
		m.again(movedWords)
		selects(strays)
		s.SetNamespaces(machineURI, "urn:more")
		m.again("")
		selects("")
		s.SetNamespaces("urn:more", machineURI)
		m.again(movedWords)
		m.Accept()
		if got, err := selectAll(t, m); len(got.Tags) > 0 || err != nil && !strings.Contains(err.Error(), "the browse path ends") { // the other's Machine has another browse name
			t.Errorf("root %s: accepted, and: %v %+v", root, err, got)
		}
	}
}
