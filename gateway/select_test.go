package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
	"millrace/gateway/record"
	"millrace/gateway/web"
)

// has reports whether the plant has a node.
func (p *plant) has(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.nodes, node)
}

// grow makes these the nodes of the plant, and has it say so.
func (p *plant) grow(nodes ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes = nodes
	p.models++
}

// builtMore reports whether more drivers have been built than so many.
func (p *plant) builtMore(than int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.built > than
}

func (m *machine) Models() uint64 {
	m.plant.mu.Lock()
	defer m.plant.mu.Unlock()
	return m.plant.models + uint64(m.plant.made[m.conn.Devices[0].Name])
}

func (m *machine) Select(context.Context, drivers.Ref) (drivers.Selection, error) {
	m.plant.mu.Lock()
	look := m.plant.look
	m.plant.mu.Unlock()
	if look != nil {
		look()
	}
	m.plant.mu.Lock()
	defer m.plant.mu.Unlock()
	switch {
	case m.plant.moved:
		return drivers.Selection{}, errors.New("another plant, until ack")
	case m.plant.nodes == nil:
		return drivers.Selection{}, errors.New("no root")
	}
	s := drivers.Selection{Done: true, Whole: true, Most: cmp.Or(m.plant.most, 5)}
	if len(m.plant.nodes) > s.Most {
		s.Cut, s.Mend = "selects more than it may", "raise it"
	}
	for _, n := range m.plant.nodes {
		s.Tags = append(s.Tags, telemetry.Tag{Name: "at " + n, Address: n})
	}
	return s, nil
}

// Changed and Accept make machine a drivers.Comparer.
func (m *machine) Changed() (c drivers.Change) {
	m.plant.mu.Lock()
	defer m.plant.mu.Unlock()
	if m.plant.moved {
		c.What = "another plant"
	}
	return c
}

// Notes makes it a drivers.Noted.
func (m *machine) Notes() (all []string) {
	if m.Changed().What != "" {
		all = []string{"it moved"}
	}
	return all
}

func (m *machine) Accept() {
	m.plant.mu.Lock()
	defer m.plant.mu.Unlock()
	m.plant.moved = false
}

// move makes the plant another one.
func (p *plant) move() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved = true
}

func (b *gatewayBed) lookAgain(anew bool) {
	b.g.mu.Lock()
	defer b.g.mu.Unlock()
	lookAgain(b.g.running.connections, anew)
}

const ruledDevice = `  - {name: r, driver: fake, url: "fake://r", groups: [{name: g, interval: 20ms, browse: all}]}`

// told waits for a message of the device r with all of these.
func (b *gatewayBed) told(words ...string) {
	b.t.Helper()
	waitFor(b.t, strings.Join(words, ", "), func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		all := b.seen["telemetry/shop/r/g"]
		return len(all) > 0 && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(all[len(all)-1], w) })
	})
}

// TestSelected: what a rule selects becomes tags, of a group that lists none; nodes that come become tags, those that go are bad until somebody wants them dropped; what did not
// change exchanges nothing, and a start has the tags before the device is there.
func TestSelected(t *testing.T) {
	p := plan{devices: []string{device("a"), ruledDevice}, tune: func(g *Gateway) { g.selections.every = 0 }}
	b := newGatewayBed(t, p)
	b.polled(2, "a", "r")
	waitFor(t, "it is said that nothing can be selected", func() bool {
		return strings.Contains(b.log.String(), "nothing can be selected: no root")
	})
	if n := strings.Count(b.log.String(), "nothing can be selected"); n != 1 {
		t.Errorf("said %d times", n)
	}
	b.plant.grow("x", "y")
	b.lookAgain(false)
	b.told(`"at x":`, `"at y":`)
	made := b.plant.count(b.plant.made)
	if c := b.reload(p); c.Kept != 2 {
		t.Errorf("a reload of the same config: %s", c)
	}
	b.plant.grow("y", "z")
	b.told(`"at y":`, `"at z":`, `no such node`)
	b.plant.grow("x", "y", "z")
	b.told(`"values":{"at x":`, `"at y":`, `"at z":`)
	if now := b.plant.count(b.plant.made); now["a"] != made["a"] || now["r"] != made["r"]+1 {
		t.Errorf("connections %v, then %v", made, now)
	}
	b.plant.grow("y")
	b.told(`no such node`)
	if _, err := b.g.ResetLearned("r", "me"); err == nil || !strings.Contains(err.Error(), "learns nothing") {
		t.Error(err)
	}
	b.lookAgain(true)
	waitFor(t, "only y is left", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		all := b.seen["telemetry/shop/r/g"]
		return strings.Contains(all[len(all)-1], "at y") && !strings.Contains(all[len(all)-1], "at x")
	})
	cfg, err := config.Load(b.file, b.plant.protocols(), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	hash := cfg.Hash()
	if n := Select(cfg); n[[2]string{"r", "g"}] != 1 || cfg.Devices[1].Groups[0].Tags[0].Name != "at y" {
		t.Errorf("%v %+v", n, cfg.Devices[1])
	}
	if s := b.g.Snapshot(); s.Config.Hash != hash {
		t.Errorf("config %s, and the file's is %s", s.Config.Hash, hash)
	}
}

// TestSelectedWhileReloaded: what a rule is found to select for a connection that a reload has already made another for comes into force in that one.
func TestSelectedWhileReloaded(t *testing.T) {
	p := plan{devices: []string{device("a"), ruledDevice}, tune: func(g *Gateway) { g.selections.every = 0 }}
	b := newGatewayBed(t, p)
	b.plant.grow("x")
	b.told(`"at x":`)
	looks := make(chan struct{})
	b.plant.mu.Lock()
	built := b.plant.built
	b.plant.look = sync.OnceFunc(func() {
		close(looks)
		for end := time.Now().Add(time.Minute); time.Now().Before(end) && !b.plant.builtMore(built); time.Sleep(time.Millisecond) {
		}
	})
	b.plant.mu.Unlock()
	b.plant.grow("x", "y")
	<-looks
	p.devices[1] = strings.Replace(ruledDevice, "20ms", "30ms", 1)
	if c := b.reload(p); c.Kept != 1 {
		t.Errorf("a reload of another interval: %s", c)
	}
	b.told(`"at x":`, `"at y":`)
	b.stands("r", web.StateOK)
}

// TestMerge: a tag keeps its name and place, whatever comes and goes, within the bound.
func TestMerge(t *testing.T) {
	tags := func(text string) (all []telemetry.Tag) {
		for _, w := range strings.Fields(text) {
			name, address, _ := strings.Cut(w, "=")
			all = append(all, telemetry.Tag{Name: name, Address: address})
		}
		return all
	}
	group := &config.Group{Group: drivers.Group{Tags: tags("speed=1 load=2")}, Derived: []config.Derived{{Tag: telemetry.Tag{Name: "sum"}}}}
	for _, c := range []struct {
		was, found, want string
		most             int
		part, anew       bool
		dropped          int
	}{
		{found: "b=4 a=3", want: "b=4 a=3"},
		{found: "x=1 speed=5 sum=6 a=7 a=8", want: "speed_2=5 sum_2=6 a=7 a_2=8"},
		{was: "a=3 b=4", found: "b2=4 c=5", want: "a=3- b=4 c=5"},
		{was: "a=3- b=4", found: "a9=3", want: "a=3 b=4-"},
		{was: "a=3 b=4", found: "c=5", part: true, want: "a=3 b=4 c=5"},
		{was: "a=3 b=4", found: "c=5", anew: true, want: "c=5", dropped: 2},
		{was: "a=3 b=4 c=5", found: "c=5 d=6 e=7", most: 3, want: "c=5 d=6 e=7", dropped: 2},
		{was: "a=3 b=4 c=5", found: "c=5 d=6", most: 3, want: "b=4- c=5 d=6", dropped: 1},
		{was: "a=3 b=4 c=5", found: "d=6", most: 2, part: true, want: "a=3 b=4", dropped: 1},
		{was: "speed=3 a=2 b=4", found: "b=4", want: "b=4", dropped: 2},
	} {
		if c.most == 0 {
			c.most = 100
		}
		var was []selectedTag
		for _, t := range tags(c.was) {
			address, gone := strings.CutSuffix(t.Address, "-")
			was = append(was, selectedTag{t.Name, address, gone})
		}
		m := merge(was, group, &drivers.Selection{Tags: tags(c.found), Most: c.most, Whole: !c.part}, c.anew)
		var got []string
		for _, t := range m.tags {
			text := strings.ReplaceAll(t.Name, " ", "_") + "=" + t.Address
			if t.Gone {
				text += "-"
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != c.want || m.dropped != c.dropped {
			t.Errorf("%+v: %q, %d dropped", c, got, m.dropped)
		}
	}
}

// TestSelectionsKept: what was selected is there after a restart for the same device and rule only; what is damaged is as none.
func TestSelectionsKept(t *testing.T) {
	log := &safeBuffer{}
	s := newSelections(t.TempDir(), slog.New(slog.NewTextHandler(log, nil)))
	for i := range 3 {
		s.by[fmt.Sprintf("d%d/g", i)] = selection{"of", []selectedTag{{Name: strings.Repeat("n", 400), Address: "a"}}}
	}
	s.file.most = 1000
	s.save()
	s.save()
	if by, err := readSelections(&s.file); err != nil || len(by) != 2 || strings.Count(log.String(), "too much to be kept") != 1 {
		t.Errorf("%v %d\n%s", err, len(by), log)
	}
	if err := s.file.write([]byte("{")); err != nil {
		t.Fatal(err)
	}
	if by, err := readSelections(&s.file); err == nil || by == nil {
		t.Errorf("%v %v", err, by)
	}
	s.file.path = t.TempDir() + "/none/selected.json"
	s.save()
	if !strings.Contains(log.String(), "cannot be kept") {
		t.Error(log)
	}
	s.forget(nil)
	if len(s.by) != 0 {
		t.Errorf("%v", s.by)
	}
}

// TestSelectedTooMany: tags that do not fit the store are not put into force; the other devices go on, and a reload, or a start, is not kept from the rest.
func TestSelectedTooMany(t *testing.T) {
	p := plan{devices: []string{device("a"), ruledDevice}, tune: func(g *Gateway) { g.selections.every = 0 }}
	b := newGatewayBed(t, p)
	b.polled(2, "a", "r")
	var nodes []string
	for i := range 3000 { // 600 kB, and a store of 16 MiB takes 256 KiB of a group
		nodes = append(nodes, fmt.Sprintf("%0200d", i))
	}
	b.plant.mu.Lock()
	b.plant.most = len(nodes)
	b.plant.mu.Unlock()
	b.plant.grow(nodes...)
	b.lookAgain(false)
	waitFor(t, "they are refused", func() bool { return strings.Contains(b.log.String(), "cannot be put into force") })
	b.polled(3, "a", "r")
	b.stands("r", web.StateDown, `the rule of group "g" adds no tags: the store has no room for the names, units and descriptions of 3000 tags; select fewer, split the group, or raise buffer.max_size`)
	if strings.Contains(b.log.String(), "segment size") {
		t.Error("the log names what is no key of a config")
	}
	b.g.reloading.Lock() // as if a start found them
	of := b.g.running.connections[1].following.rules[0].key.of
	b.g.reloading.Unlock()
	var tags []selectedTag
	for _, n := range nodes {
		tags = append(tags, selectedTag{Name: n, Address: n})
	}
	b.plant.grow("x")
	b.g.selections.mu.Lock()
	b.g.selections.by["r/g"] = selection{of, tags}
	b.g.selections.mu.Unlock()
	p.devices = append(p.devices, device("b"))
	b.reload(p)
	b.polled(3, "a", "b", "r")
	b.told(`"at x":`)
	b.stands("r", web.StateOK)
	if !strings.Contains(b.log.String(), "has only the tags that its config lists") {
		t.Error("it was not said")
	}
	b.g.selections.mu.Lock()
	b.g.selections.made = maxSelected
	b.g.selections.mu.Unlock()
	b.plant.grow("x", "y")
	waitFor(t, "it is said that there are too many changes", func() bool { return strings.Contains(b.log.String(), "at the next start, or at a reload") })
	b.reload(p)
	b.told(`"at y":`)
}

// TestTooMuchDescribed: what a device says of its tags may be too much for the store; the readings go on.
func TestTooMuchDescribed(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{device("a")}})
	b.polled(1, "a")
	log := &safeBuffer{}
	small := &record.Schema{Gateway: "g", Device: "a", Group: "x", Tags: []record.Tag{{Name: "n"}}}
	s := &groupSink{buf: b.g.buf, schemas: &b.g.schemas, device: "a", log: slog.New(slog.NewTextHandler(log, nil))}
	if err := s.use(small); err != nil {
		t.Fatal(err)
	}
	large := &record.Schema{Gateway: "g", Device: "a", Group: "x"}
	for range 3000 {
		large.Tags = append(large.Tags, record.Tag{Name: strings.Repeat("n", 200)})
	}
	payload := record.Append(nil, &record.Record{Time: 1, Readings: []telemetry.Reading{{Time: 1, Value: telemetry.Int(1)}}})
	for range 2 {
		if err := s.Append(large, payload, 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "is not kept, because there is no room"); n != 1 {
		t.Errorf("said %d times", n)
	}
}
