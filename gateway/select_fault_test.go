package gateway

import (
	"slices"
	"strings"
	"testing"

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
	b.stands("m", web.StatePartlyBad, `the rule of group "h" selects nothing: no root; nor do those of 1 group more; see `)
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
