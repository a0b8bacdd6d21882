package opcua

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

var long = flag.Bool("long", os.Getenv("FAULTS") == "long", "run the long form of the tests with node-opcua: 10 minutes of short tokens, each bad certificate; also FAULTS=long")

// nodeDevice describes a device on node-opcua, whose certificate is trusted, signed and encrypted.
func nodeDevice(t *testing.T, url string, groups ...drivers.Group) drivers.Connection {
	t.Helper()
	dir := t.TempDir()
	ownIn(t, dir)
	host, err := os.Hostname() // which its certificate is for
	if err != nil {
		t.Fatal(err)
	}
	c := connection(url, 10*time.Second)
	c.Devices[0].Groups = groups
	c.Devices[0].Options = map[string]string{"pki": dir, "server_name": host}
	refused(t, c, "is not trusted; compare the thumbprint")
	trust(t, dir)
	return c
}

// nodeGroup has tags t0, t1, … of node-opcua's own namespace.
func nodeGroup(interval time.Duration, nodes ...string) drivers.Group {
	g := drivers.Group{Name: fmt.Sprint(interval), Interval: interval}
	for i, n := range nodes {
		g.Tags = append(g.Tags, telemetry.Tag{Name: fmt.Sprint("t", i), Address: "ns=1;s=" + n, Options: map[string]string{"read_back": "true"}})
	}
	return g
}

// traffic is what goes over one channel of node-opcua while its token is renewed.
type traffic struct {
	changes, reads, writes int
	last                   [2]uint64
	missing                [2][]uint64 // numbers before which some are
	renewals               int
	renewed                time.Time
}

// take counts what is pushed. Each number follows the one before.
func (o *traffic) take(p *drivers.Push, ok bool) error {
	if !ok || p.Err != nil || p.Lost > 0 {
		return fmt.Errorf("pushed: %t, %w, %d lost: %s", ok, p.Err, p.Lost, p.Note)
	}
	for _, r := range p.Readings {
		if last := o.last[r.Tag]; last != 0 && r.Value.Bits != last+1 {
			o.missing[r.Tag] = append(o.missing[r.Tag], r.Value.Bits)
		}
		o.last[r.Tag] = r.Value.Bits
		o.changes++
	}
	return nil
}

// poll reads one group and writes to another.
func (o *traffic) poll(t *testing.T, d *driver) error {
	r, err := d.Read(t.Context(), drivers.Ref{Group: 1}, nil)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if r[0].Value != telemetry.Float64(2.718281828459045) || r[1].Value.Text != "Größe 5 µm" {
		return fmt.Errorf("read %+v", r)
	}
	o.reads++
	if err := errors.Join(d.Write(t.Context(), []drivers.Write{{Group: drivers.Ref{Group: 2}, Value: telemetry.Uint(uint64(o.reads))}})...); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	o.writes++
	return nil
}

// pushedWith connects and subscribes the first group, with tokens that live for so long.
func pushedWith(t *testing.T, c drivers.Connection, life time.Duration) (*driver, error) {
	t.Helper()
	d, err := openFor(t, c, life)
	if err != nil {
		return d, err
	}
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
		return d, fmt.Errorf("subscribe: %t, %w", ok, err)
	}
	return d, nil
}

// TestNodeOPCUATokens has tokens that live for 2 s, while node-opcua publishes, is polled and written to: nothing is missing and the connection stands. -long: for ten minutes.
func TestNodeOPCUATokens(t *testing.T) {
	t.Parallel()
	lasts := 20 * time.Second
	if *long {
		lasts = 10 * time.Minute
	}
	c := nodeDevice(t, nodeOPCUA(t, "many", "1"), nodeGroup(50*time.Millisecond, "Interop.Beat", "Many.0"),
		nodeGroup(time.Second, "Interop.Double", "Interop.String"), nodeGroup(time.Second, "Writable.UInt32"))
	withTokens(t, 2*time.Second, func(life time.Duration) error { return trafficFor(t, c, life, lasts) })
}

// trafficFor has all kinds of traffic for a while, and for longer where the machine is slow.
func trafficFor(t *testing.T, c drivers.Connection, life, lasts time.Duration) error {
	d, err := pushedWith(t, c, life)
	defer d.Close()
	if err != nil {
		return err
	}
	o, stalled := traffic{}, watchMachine(t)
	turn := time.NewTicker(20 * time.Millisecond)
	defer turn.Stop()
	least := int(lasts / (4 * time.Second))
	little := func() bool { return o.renewals < min(least, 5) || o.changes < 10*least || o.writes < 10*least }
	for begin := time.Now(); time.Since(begin) < lasts || little() && time.Since(begin) < 4*lasts; {
		var err error
		select {
		case p, ok := <-d.Pushed():
			err = o.take(&p, ok)
		case <-turn.C:
			err = o.poll(t, d)
		}
		if err != nil {
			return fmt.Errorf("after %v and %+v: %w; the machine stood still for up to %v", time.Since(begin), o, err, stalled())
		}
		if at, _ := d.link.channel.Times(); !at.Equal(o.renewed) {
			o.renewed = at
			o.renewals++
		}
	}
	judgeMissing(t, o.missing[0], stalled())
	if len(o.missing[1]) > 0 { // a second between two: no two of them are in one sample
		t.Errorf("before %v a change is missing", o.missing[1])
	}
	if little() {
		t.Errorf("too little: %+v", o)
	}
	t.Logf("FIGURES %s: in %v %d tokens of %v, %d changes published, %d polls, %d writes read back; missing %d changes of 100 ms, %d of 1 s; the machine stood still for up to %v",
		t.Name(), lasts, o.renewals, life, o.changes, o.reads, o.writes, len(o.missing[0]), len(o.missing[1]), stalled().Round(time.Millisecond))
	return nil
}

// TestNodeOPCUAQuietTokens: nothing changes, so that a Publish request waits at node-opcua for longer than the token lives with which it came. The
// connection stands; who wants it for longer writes -long.
func TestNodeOPCUAQuietTokens(t *testing.T) {
	t.Parallel()
	url, _ := nodeOPCUAIn(t, t.TempDir())
	c := nodeDevice(t, url, nodeGroup(50*time.Millisecond, "Interop.String"))
	withTokens(t, 2*time.Second, func(life time.Duration) error {
		lasts := 6 * life
		if *long {
			lasts = 10 * time.Minute
		}
		d, err := pushedWith(t, c, life)
		defer d.Close()
		if err != nil {
			return err
		}
		end := time.After(lasts)
		for pushes := 0; ; pushes++ {
			select {
			case p, ok := <-d.Pushed():
				if !ok || p.Err != nil {
					return fmt.Errorf("%t, after %d pushes: %w", ok, pushes, p.Err)
				}
			case <-end:
				t.Logf("FIGURES %s: the connection stands for %v, %d pushes", t.Name(), lasts, pushes)
				return nil
			}
		}
	})
}

// TestNodeOPCUASlowLogin has a login that takes longer than the token lives with which it is asked for. node-opcua has no keys for its answer then, unless the
// token is renewed meanwhile.
func TestNodeOPCUASlowLogin(t *testing.T) {
	t.Parallel()
	url, _ := nodeOPCUAIn(t, t.TempDir())
	c := nodeDevice(t, url, nodeGroup(time.Second, "Interop.Double"))
	trusted := c.Devices[0].Options
	for _, mode := range []string{"sign", "sign-and-encrypt"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := c
			c.Devices = slices.Clone(c.Devices)
			c.Devices[0].Options = map[string]string{"security_mode": mode, "username": "slow", "password": "päss"}
			maps.Copy(c.Devices[0].Options, trusted)
			d, err := openFor(t, c, 6*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if r := read(t, d); r[0].Value != telemetry.Float64(2.718281828459045) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestNodeOPCUAMany subscribes 5,000 items of node-opcua, signed and encrypted, all of which change each second: every change of each comes. Where the machine is too slow
// for that, node-opcua tells that its queues have run over; then they change half as often.
func TestNodeOPCUAMany(t *testing.T) {
	t.Parallel()
	const items = 5000
	nodes := make([]string, items)
	for i := range nodes {
		nodes[i] = fmt.Sprint("Many.", i)
	}
	for every, slow := time.Second, true; slow; every *= 2 {
		slow = false
		t.Run(every.String(), func(t *testing.T) {
			url := nodeOPCUA(t, "many", fmt.Sprint(items), fmt.Sprint(every.Milliseconds()))
			changes, err := allChanges(t, nodeDevice(t, url, nodeGroup(250*time.Millisecond, nodes...)), items, 20)
			if slow = err != nil && every < 8*time.Second; slow {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("FIGURES %s: %d items, %d changes came, none is missing", t.Name(), items, changes)
		})
	}
}

// allChanges waits until each item of a group has had so many changes. Only that node-opcua's queues have run over, or that it is too busy to answer, is an error that it returns.
func allChanges(t *testing.T, c drivers.Connection, items, turns int) (changes int, err error) {
	t.Helper()
	d, pushes := subscribed(t, c)
	defer d.Close()
	first, last := make([]uint64, items), map[uint32]uint64{}
	var missing []uint64
	for behind, end := items, time.After(5*time.Minute); behind > 0; {
		select {
		case <-end:
			t.Fatalf("%d of %d items have not had %d changes", behind, items, turns)
		case p, ok := <-pushes:
			if late := timeoutError(0); errors.As(p.Err, &late) {
				return changes, p.Err
			}
			if !ok || p.Err != nil {
				t.Fatalf("%v: %v", ok, p.Err)
			}
			if p.Lost > 0 {
				return changes, fmt.Errorf("%d lost: %s", p.Lost, p.Note)
			}
			for _, r := range p.Readings {
				now := r.Value.Bits
				switch before, seen := last[r.Tag]; {
				case r.Quality != telemetry.Good:
					t.Fatalf("%+v", r)
				case !seen:
					first[r.Tag] = now
				case now != before+1:
					missing = append(missing, now)
				}
				if last[r.Tag] = now; now == first[r.Tag]+uint64(turns) {
					behind--
				}
				changes++
			}
		}
	}
	slices.Sort(missing)
	if missing = slices.Compact(missing); len(missing) > 0 {
		t.Errorf("changes are missing before %v", missing)
	}
	return changes, nil
}
