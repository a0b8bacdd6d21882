package opcua

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// firstOf waits for a reading of a tag with this quality.
func firstOf(t *testing.T, pushes <-chan drivers.Push, tag uint32, q telemetry.Quality) (r telemetry.Reading) {
	t.Helper()
	next(t, pushes, func(p *drivers.Push) bool {
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		for _, r = range p.Readings {
			if r.Tag == tag && r.Quality == q {
				return true
			}
		}
		return false
	})
	return r
}

// TestNodeComesBack: a node that is deleted and added again is monitored anew, though its item is dead; the others go on.
func TestNodeComesBack(t *testing.T) {
	t.Parallel()
	s := start(t, opcuasim.Options{}, 1)
	counter(s, "n").Store(1)
	c := connection(s.Endpoint(), patience, "ns=2;s=v0", "ns=2;s=n")
	c.Devices[0].Options["verify_interval"] = "1s"
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	_, pushes := subscribed(t, c)
	firstOf(t, pushes, 1, telemetry.Good)
	s.RemoveVariable("n")
	if r := firstOf(t, pushes, 1, telemetry.Bad); !strings.HasPrefix(r.Reason, "BadNodeIdUnknown: ") {
		t.Errorf("%+v", r)
	}
	n := counter(s, "n")
	n.Store(2)
	if r := firstOf(t, pushes, 1, telemetry.Good); r.Value != telemetry.Int(2) {
		t.Errorf("%+v", r)
	}
	s.RemoveVariable("n") // and once more
	firstOf(t, pushes, 1, telemetry.Bad)
	n = counter(s, "n")
	n.Store(3)
	if r := firstOf(t, pushes, 1, telemetry.Good); r.Value != telemetry.Int(3) {
		t.Errorf("%+v", r)
	}
	if s.Items() != 2 {
		t.Errorf("the server has %d items, want 2: the dead ones are deleted", s.Items())
	}
}

// TestLives: a tag whose node is gone is told of once, also by an item that was made anew; one that the server revives is not tried again.
func TestLives(t *testing.T) {
	f, s := &feed{converter: converter{texts: statusTexts{}}}, &member{reasons: map[int]string{}, dead: map[int]uint32{}}
	dead, good := wire.DataValue{Status: uint32(ua.StatusBadNodeIDUnknown)}, wire.DataValue{}
	told := []bool{f.lives(s, 3, &dead), f.lives(s, 3, &dead)}
	s.refused = nil // as a retry takes it, and the server then monitors it
	delete(s.reasons, 3)
	told = append(told, f.lives(s, 3, &dead))
	if fmt.Sprint(told) != "[true false false]" || !slices.Equal(s.refused, []int{3}) || s.retry.IsZero() {
		t.Errorf("told %v, refused %v", told, s.refused)
	}
	if !f.lives(s, 3, &good) || len(s.refused)+len(s.reasons)+len(s.dead) > 0 {
		t.Errorf("a revived one stays: %v %v %v", s.refused, s.reasons, s.dead)
	}
}

// TestNodeOPCUANodeComesBack: so it is with node-opcua, also for a node by browse path. Meanwhile it wants its conditions refreshed, which no filter hides.
func TestNodeOPCUANodeComesBack(t *testing.T) {
	t.Parallel()
	c := connection(nodeOPCUA(t, "fleeting"), 10*time.Second, "ns=1;s=Fleeting", "/Objects/1:Fleeting", "i=2253", "ns=1;s=Late", "/Objects/1:Late")
	eventTag(c, 2, map[string]string{"event_type": "i=2915", "min_severity": "1"})
	eventTag(c, 3, nil)
	eventTag(c, 4, nil)
	c.Devices[0].Options = map[string]string{"security_policy": "none"}
	c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
	_, pushes := subscribed(t, c)
	seen, refreshed := map[uint32][]string{}, 0
	next(t, pushes, func(p *drivers.Push) bool {
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		for _, r := range p.Readings {
			if strings.Contains(r.Value.Text, `"refresh":true`) {
				refreshed++
			}
			if s := seen[r.Tag]; len(s) == 0 || s[len(s)-1] != r.Quality.String() {
				seen[r.Tag] = append(s, r.Quality.String())
				t.Logf("tag %d: %v %s", r.Tag, r.Quality, r.Reason)
			}
		}
		return strings.Join(seen[0], " ") == "good bad good" && strings.Join(seen[1], " ") == "good bad good" && refreshed > 1 &&
			strings.Join(seen[3], " ") == "bad good" && strings.Join(seen[4], " ") == "bad good"
	})
}
