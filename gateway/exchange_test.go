package gateway

import (
	"errors"
	"strings"
	"testing"
	"time"

	"millrace/gateway/web"
)

// exchanged runs devices a and b on one line and adds c to it by a reload; how attempts to connect end from then on says dial.
func exchanged(t *testing.T) (b *gatewayBed, dial chan error, at time.Time) {
	t.Helper()
	on := func(name string) string { return strings.Replace(device(name), `"fake://`+name, `"fake://one`, 1) }
	b = newGatewayBed(t, plan{devices: []string{on("a"), on("b")}})
	b.polled(2, "a", "b")
	dial = make(chan error)
	b.plant.mu.Lock()
	b.plant.dial = dial
	b.plant.mu.Unlock()
	at = time.Now()
	b.reload(plan{devices: []string{on("a"), on("b"), on("c")}})
	return b, dial, at
}

// ups says which devices count as up.
func ups(b *gatewayBed) (up string) {
	s := b.g.Snapshot()
	for i := range s.Devices {
		if s.Devices[i].Up {
			up += s.Devices[i].Name
		}
	}
	return up
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

// TestReloadAlarmsNobody: devices whose connection a reload exchanges, and that were up, count as up until they are tried;
// a new one counts as down, as it always did.
func TestReloadAlarmsNobody(t *testing.T) {
	b, dial, at := exchanged(t)
	if got := ups(b); got != "ab" && time.Since(at) < firstLook {
		t.Errorf("up while they are being connected: %q, want a and b", got)
	}
	if h := b.g.Snapshot().Ready(); h.Status != "attention" && time.Since(at) < firstLook {
		t.Errorf("ready: %+v", h)
	}
	close(dial)
	waitFor(t, "all up", func() bool { return ups(b) == "abc" })
}

// TestExchangedAndFailed: what fails at the first try after the exchange is down at once.
func TestExchangedAndFailed(t *testing.T) {
	b, dial, _ := exchanged(t)
	dial <- errors.New("no route")
	waitFor(t, "a has failed", func() bool {
		d := b.g.Snapshot().Devices[0]
		if d.Reason == "no route" && d.Up {
			t.Error("a has failed, and counts as up")
		}
		return d.Reason == "no route"
	})
	close(dial)
}

// TestExchangedAndSilent: what cannot be tried counts as up for a moment only, also when reload follows upon reload.
func TestExchangedAndSilent(t *testing.T) {
	b, dial, at := exchanged(t)
	on := func(name string) string { return strings.Replace(device(name), `"fake://`+name, `"fake://one`, 1) }
	both := []plan{{devices: []string{on("a"), on("b")}}, {devices: []string{on("a"), on("b"), on("c")}}}
	for i := 0; ups(b) != ""; i++ {
		if time.Since(at) > 30*time.Second {
			t.Fatal("they still count as up")
		}
		b.reload(both[i%2])
		time.Sleep(firstLook / 10)
	}
	if time.Since(at) < firstLook {
		t.Errorf("down after %v", time.Since(at))
	}
	close(dial)
	waitFor(t, "all up", func() bool { return strings.HasPrefix(ups(b), "ab") })
}

// TestStandsAtTheLastLook: by kind, name and state.
func TestStandsAtTheLastLook(t *testing.T) {
	j := &judge{states: map[string]*standing{}}
	s := &web.Snapshot{Now: time.Now(), States: []web.State{{Kind: "device", Name: "a", State: web.StateDown}}}
	j.stamp(s)
	if !j.stands("device", "a", web.StateDown) || j.stands("device", "b", web.StateDown) || j.stands("device", "a", web.StateLate) {
		t.Error("what stands")
	}
}
