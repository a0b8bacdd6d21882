package opcua

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// intervals are those of the groups that share a subscription, the fastest neither first nor last.
var intervals = []time.Duration{400 * time.Millisecond, 50 * time.Millisecond, 2 * time.Second}

// sharing is a device with a group of each interval, of the tags n0, n1 and n2.
func sharing(endpoint string) drivers.Connection {
	c := connection(endpoint, 2*time.Second, "ns=2;s=n0")
	c.Devices[0].Groups = nil
	for i, interval := range intervals {
		name := fmt.Sprintf("n%d", i)
		c.Devices[0].Groups = append(c.Devices[0].Groups, drivers.Group{Name: name, Interval: interval, Tags: []telemetry.Tag{{Name: name, Address: "ns=2;s=" + name, Scale: 1}}})
	}
	return c
}

func subscribeAll(t *testing.T, d *driver) <-chan drivers.Push {
	t.Helper()
	for i := range d.groups[0] {
		if ok, err := d.Subscribe(t.Context(), drivers.Ref{Group: i}); !ok || err != nil {
			t.Fatalf("group %d: %v, %v", i, ok, err)
		}
	}
	return d.Pushed()
}

// TestShared: at a server with one subscription, or two, all groups are pushed, each at its own interval; what they share publishes as often as the fastest wants, and that is said.
func TestShared(t *testing.T) {
	t.Parallel()
	for most, want := range map[int]string{
		1: "the server has no more subscriptions (BadTooManySubscriptions: %): 3 groups share one that publishes every 50ms, and each is sampled at its own interval",
		2: "the server has no more subscriptions (BadTooManySubscriptions: %): 2 groups share one that publishes every 400ms, and each is sampled at its own interval",
	} {
		s := start(t, opcuasim.Options{MaxSubscriptions: most}, 0)
		tally(s, "n0")
		tally(s, "n1")
		counter(s, "n2") // says nothing after its first value
		d := connect(t, sharing(s.Endpoint()))
		pushes := subscribeAll(t, d)
		if len(d.feed.subs) != most {
			t.Errorf("%d subscriptions of %d", len(d.feed.subs), most)
		}
		notes, begin := map[string]int{}, time.Now()
		var values, signs [3]int
		next(t, pushes, func(p *drivers.Push) bool {
			if p.Err != nil {
				t.Fatal(p.Err)
			}
			if p.Note != "" {
				from, to := strings.Index(p.Note, ": "), strings.Index(p.Note, "): ")
				notes[p.Note[:from+2]+"%"+p.Note[to:]]++
			}
			if values[p.Group.Group] += len(p.Readings); len(p.Readings) == 0 {
				signs[p.Group.Group]++
			}
			return signs[2] == 4 // beside a group that always has something to say
		})
		if len(notes) != 1 || notes[want] != 1 {
			t.Errorf("%d: said %v", most, notes)
		}
		if took := time.Since(begin); took < 3*intervals[2]-time.Second || values[1] <= values[0] || values[2] != 1 {
			t.Errorf("%d: in %v %v values and %v more signs of life, by intervals of %v", most, took, values, signs, intervals)
		}
	}
}

// TestSharedNotedOnce: that groups share a subscription is told by one of them, in whatever order they are subscribed, in sentences of its own, and again when it is another matter only.
func TestSharedNotedOnce(t *testing.T) {
	t.Parallel()
	s := start(t, opcuasim.Options{MaxSubscriptions: 1}, 3)
	s.AddMachineTree(time.Now())
	c := connection(s.Endpoint(), 5*time.Second, "ns=2;s=Machine")
	eventTag(c, 0, nil)
	for i := range 2 {
		c.Devices[0].Groups = append(c.Devices[0].Groups, drivers.Group{Name: fmt.Sprint(i), Interval: time.Second, Tags: []telemetry.Tag{{Name: "v", Address: fmt.Sprintf("ns=2;s=v%d", i), Scale: 1}}})
	}
	d := connect(t, c)
	d.groups[0][0].unheld = "BadMethodInvalid"
	told := func(order ...int) (notes []string) {
		t.Helper()
		for _, i := range order {
			if ok, err := d.Subscribe(t.Context(), drivers.Ref{Group: i}); !ok || err != nil {
				t.Fatal(i, ok, err)
			}
		}
		for _, o := range d.feed.first {
			if note := o.member.group.news(o.got.note(o.asked, d.feed, o.member)); note != "" {
				notes = append(notes, note)
			}
		}
		return notes
	}
	const want = "3 groups share one that publishes every 1s, and each is sampled at its own interval; it does not tell which conditions stand (ConditionRefresh: BadMethodInvalid): an alarm"
	if got := told(0, 1, 2); len(got) != 1 || !strings.Contains(got[0], want) {
		t.Errorf("told %q", got)
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}} {
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := told(order...); len(got) > 0 {
			t.Errorf("told again: %q", got)
		}
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := told(0, 1); len(got) != 1 || !strings.Contains(got[0], "2 groups share one") {
		t.Errorf("told of another: %q", got)
	}
}

// TestSharedConditions: the conditions of groups that share a subscription are asked for once, and come to each of them.
func TestSharedConditions(t *testing.T) {
	s := start(t, opcuasim.Options{MaxSubscriptions: 1}, 0)
	s.AddMachineTree(time.Now().Add(-time.Minute))
	s.Raise(opcuasim.Event{Node: "Machine", Source: "Tool", Condition: "ToolBroken", Severity: 900, Retain: true, Active: true, Message: "the tool is broken"})
	c := connection(s.Endpoint(), 2*time.Second, "ns=2;s=Machine")
	eventTag(c, 0, nil)
	c.Devices[0].Groups = append(c.Devices[0].Groups, c.Devices[0].Groups[0])
	c.Devices[0].Groups[1].Name = "too"
	d := connect(t, c)
	pushes := subscribeAll(t, d)
	seen := map[int]int{}
	next(t, pushes, func(p *drivers.Push) bool {
		for _, r := range p.Readings {
			if strings.Contains(r.Value.Text, "the tool is broken") && strings.Contains(r.Value.Text, `"refresh":true`) {
				seen[p.Group.Group]++
			}
		}
		return len(seen) == 2
	})
	if n := s.Refreshes(); n != 1 || seen[0] != 1 || seen[1] != 1 {
		t.Errorf("asked %d times, and told %v", n, seen)
	}
}

// TestSharedCrowded: a group that does not fit is polled with mode: auto, and takes nothing of the subscription with it that others have.
func TestSharedCrowded(t *testing.T) {
	s := start(t, opcuasim.Options{MaxSubscriptions: 1, MaxItems: 3}, 3)
	c := connection(s.Endpoint(), 5*time.Second, variables(2)...)
	c.Devices[0].Options["mode"] = "auto"
	few := c.Devices[0].Groups[0]
	c.Devices[0].Groups = append(c.Devices[0].Groups, few, few)
	c.Devices[0].Groups[1].Name, c.Devices[0].Groups[2].Name = "more", "one"
	c.Devices[0].Groups[2].Tags = few.Tags[:1]
	d := connect(t, c)
	for i, want := range []bool{true, false, true} {
		if ok, err := d.Subscribe(t.Context(), drivers.Ref{Group: i}); ok != want || err != nil {
			t.Fatalf("group %d: %v, %v", i, ok, err)
		}
	}
	if n := s.Items(); n != 3 {
		t.Errorf("the server has %d items, want those of two groups", n)
	}
	seen := map[int]bool{}
	next(t, d.Pushed(), func(p *drivers.Push) bool {
		for range p.Readings {
			seen[p.Group.Group] = true
		}
		return seen[0] && seen[2]
	})
	if seen[1] {
		t.Error("the group that is polled is pushed as well")
	}
}

// journals are pollers in short of the groups of one device.
func (j journals) run(ctx context.Context, d *driver) {
	for ctx.Err() == nil {
		since, err := j.session(ctx, d)
		for i := range j {
			j[i].cut(since, err)
		}
		if ctx.Err() == nil {
			time.Sleep(100 * time.Millisecond)
		}
		d.Close()
	}
}

type journals []*journal

func (j journals) session(ctx context.Context, d *driver) (since time.Time, err error) {
	if err := d.Connect(ctx); err != nil {
		return since, err
	}
	for i := range j {
		if _, err := d.Subscribe(ctx, drivers.Ref{Group: i}); err != nil {
			return since, err
		}
	}
	for i := range j {
		j[i].resumed()
	}
	pushes := d.Pushed()
	for {
		select {
		case <-ctx.Done():
			return since, nil
		case p, ok := <-pushes:
			if err := j[p.Group.Group].take(&p, ok); err != nil {
				return p.Since, err
			}
		}
	}
}

// TestSharedLosses: three groups share one subscription, which breaks. Of each, every change came, or lies in a gap that was told of that group; where nothing is missing, none is told.
func TestSharedLosses(t *testing.T) {
	t.Parallel()
	for _, o := range outages() {
		if !slices.Contains([]string{"restart", "lost session", "deleted subscription, told", "deleted subscription, untold", "answers all but Publish", "sequence gap, republished", "sequence gap, forgotten", "many messages forgotten"}, o.name) {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, opcuasim.Options{OneClient: true, MaxSubscriptions: 1}, 0)
			var n []*counted
			var j journals
			for i, interval := range intervals {
				n, j = append(n, tally(s, fmt.Sprintf("n%d", i))), append(j, &journal{interval: interval})
			}
			made, err := newDriver(sharing(s.Endpoint()))
			if err != nil {
				t.Fatal(err)
			}
			d := made.(*driver)
			d.set.quiet = testQuiet
			ctx, cancel := context.WithCancel(context.Background())
			over := make(chan struct{})
			go func() {
				defer close(over)
				j.run(ctx, d)
			}()
			t.Cleanup(func() { cancel(); <-over })
			more := func(k int) {
				t.Helper()
				for i := range j {
					before := j[i].values()
					eventually(t, fmt.Sprintf("values of group %d", i), time.Minute, func() bool { return j[i].values() >= before+k })
				}
			}
			more(3)
			begin := time.Now()
			o.begin(&plant{Server: s})
			for i := range j {
				if o.gap != "" {
					eventually(t, "the gap", time.Minute, func() bool { _, ok := j[i].since(begin, isGap); return ok })
				}
			}
			if o.mend != nil {
				o.mend(&plant{Server: s})
			}
			more(3)
			more(2)
			for i := range j {
				if l, ok := j[i].since(begin, isGap); ok && o.gap == "" {
					t.Errorf("group %d: a gap %q where nothing is missing", i, l.gap)
				}
				silent, named := j[i].account(n[i])
				if len(silent) > 0 {
					t.Errorf("group %d: %d values are missing in no gap: %v\n%s", i, len(silent), silent, j[i].story(n[i], silent))
				}
				t.Logf("FIGURES F22 shared, %s, group of %v: %d values, %d more in gaps that were told, %d silent losses", o.name, intervals[i], j[i].values(), len(named), len(silent))
			}
		})
	}
}

// TestSubscriptionsOfOneID: a server that gives two subscriptions one id is at fault: the values of the one would pass for those of the other.
func TestSubscriptionsOfOneID(t *testing.T) {
	s := start(t, opcuasim.Options{OneID: true}, 0)
	for _, name := range []string{"n0", "n1", "n2"} {
		tally(s, name)
	}
	d := connect(t, sharing(s.Endpoint()))
	if pushed, err := d.Subscribe(t.Context(), drivers.Ref{}); !pushed || err != nil {
		t.Fatal(pushed, err)
	}
	if pushed, err := d.Subscribe(t.Context(), drivers.Ref{Group: 1}); pushed || err == nil || !strings.Contains(err.Error(), "two subscriptions one id") {
		t.Errorf("pushed %t, %v", pushed, err)
	}
}
