package gateway

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/gateway/web"
)

// stands waits until a device has a state, with these words in its sentence; web.StateOK has none.
func (b *gatewayBed) stands(device, state string, words ...string) {
	b.t.Helper()
	waitFor(b.t, device+" is "+state+" "+strings.Join(words, ", "), func() bool {
		s := b.g.Snapshot()
		i := slices.IndexFunc(s.States, func(st web.State) bool { return st.Kind == "device" && st.Name == device })
		if i < 0 {
			return state == web.StateOK
		}
		text := s.States[i].String()
		return s.States[i].State == state && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	})
}

// TestSelectsNothing: a device whose rule selects nothing is not well, and says why, until it does; before it is followed there is nothing to say.
func TestSelectsNothing(t *testing.T) {
	fresh := &following{rules: make([]ruledGroup, 1)}
	if f := fresh.fault(0); f.What != "" {
		t.Errorf("before it is followed: %+v", f)
	}
	mixed := `  - {name: m, driver: fake, url: "fake://m", groups: [{name: h, interval: 20ms, browse: all}, {name: i, interval: 20ms, browse: all}, {name: g, interval: 20ms, tags: [{name: n, address: a}]}]}`
	b := newGatewayBed(t, plan{devices: []string{device("a"), ruledDevice, mixed}, tune: func(g *Gateway) { g.selections.every = 0 }})
	b.stands("r", web.StateDown, `the rule of group "g" selects nothing: no root; see `+"`browse` of that group")
	b.stands("m", web.StatePartlyBad, `the rule of group "h" selects nothing: no root; so it is, or alike, with 1 group more; see `)
	b.plant.grow(make([]string, 0)...)
	b.lookAgain(false)
	b.stands("r", web.StateDown, `selects nothing: the device has nothing that it fits; see`)
	b.stands("a", web.StateOK)
	waitFor(t, "the log says it", func() bool { return strings.Contains(b.log.String(), `device \"r\": down since`) })
	b.plant.grow("x")
	b.lookAgain(false)
	b.stands("r", web.StateOK)
	b.stands("m", web.StateOK)
}

// TestSelectsTooMuch: a rule that selects more than it may have is a state of its device, until it does not.
func TestSelectsTooMuch(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{ruledDevice}, tune: func(g *Gateway) { g.selections.every = 0 }})
	b.plant.grow("a", "b", "c", "d", "e", "f")
	b.lookAgain(false)
	b.told(`"at e":`)
	b.stands("r", web.StatePartlyBad, `the rule of group "g" selects more than it may; raise it`)
	b.plant.grow("a", "b", "c", "d", "e")
	b.lookAgain(false)
	b.stands("r", web.StateOK)
}

// TestRuleOfAChangedDevice: a rule that is not followed because its device is another is not said to select nothing, and is followed as soon as that is accepted.
func TestRuleOfAChangedDevice(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{ruledDevice}, tune: func(g *Gateway) { g.selections.every = time.Hour }})
	b.plant.grow("a", "b")
	b.lookAgain(false)
	b.told(`"at b":`)
	b.plant.move()
	b.lookAgain(false)
	rule := func() string {
		s := b.g.Snapshot()
		return s.Devices[0].Rule.What
	}
	waitFor(t, "the rule is not followed", func() bool {
		return rule() == `the rule of group "g" cannot be followed, and its 2 tags stay: another plant, until ack`
	})
	if s := b.g.Snapshot(); !slices.Equal(s.Devices[0].Notes, []string{"it moved"}) {
		t.Errorf("notes %q", s.Devices[0].Notes)
	}
	b.plant.grow("a", "b", "c")
	if _, err := b.g.Ack("me"); err != nil {
		t.Fatal(err)
	}
	if what := rule(); what != "" {
		t.Errorf("after the ack: %s", what)
	}
	b.told(`"at c":`)
}

// TestRuledDeviceAtAStop: the values of a device are gone first, which does not make it one without tags.
func TestRuledDeviceAtAStop(t *testing.T) {
	for tags, want := range map[int]string{48: web.StatePartlyBad, 0: web.StateDown} {
		s := web.Snapshot{Devices: []web.Device{{Name: "r", Connected: true, Ended: true, Rule: web.RuleFault{What: "w", Mend: "m"}, Groups: []web.Group{{Name: "g", Tags: tags}}}}}
		if s.Judge(); s.Devices[0].State != want {
			t.Errorf("with %d tags: %s", tags, s.Devices[0].State)
		}
	}
}

// TestNotesAreSaidOnce: a note of a device is in the log when it is new.
func TestNotesAreSaidOnce(t *testing.T) {
	log := &safeBuffer{}
	j := &judge{log: slog.New(slog.NewTextHandler(log, nil))}
	for _, notes := range [][]string{{"a"}, {"a", "b"}, nil, {"b"}} {
		j.note(&web.Snapshot{Devices: []web.Device{{Name: "r", Notes: notes}, {Name: "s"}}})
	}
	if text := log.String(); strings.Count(text, "device: a") != 1 || strings.Count(text, "device: b") != 2 || strings.Count(text, "\n") != 3 {
		t.Error(text)
	}
}
