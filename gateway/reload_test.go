package gateway

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/gateway/command"
	"millrace/gateway/config"
	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/web"
)

func TestReloadTouchesOnlyWhatChanged(t *testing.T) {
	a, c := device("a"), device("c")
	b := newGatewayBed(t, plan{devices: []string{a, device("b"), c}})
	b.polled(5, "a", "b", "c")
	change := b.reload(plan{devices: []string{a, device("b", "timeout: 3s"), device("d")}})
	if got := change.String(); got != "devices added: d; changed: b; removed: c; connections untouched: 1" {
		t.Errorf("change %q", got)
	}
	b.polled(5, "a", "b", "d")
	made := b.plant.count(b.plant.made)
	if want := map[string]int{"a": 1, "b": 2, "c": 1, "d": 1}; !maps.Equal(made, want) {
		t.Errorf("connections made: %v, want %v", made, want)
	}
	gone := b.plant.count(b.plant.reads)["c"]
	b.polled(10, "a")
	if now := b.plant.count(b.plant.reads)["c"]; now != gone {
		t.Errorf("a removed device is still polled: %d, then %d", gone, now)
	}
	change = b.reload(plan{devices: []string{a, device("b", "timeout: 3s"), device("d"), c}})
	if got := change.String(); got != "devices added: c; connections untouched: 3" {
		t.Errorf("change %q", got)
	}
	b.polled(5, "c")
	b.delivered("a", "b", "c", "d")
	if n := b.broker.Stats().Connects; n != 1 {
		t.Errorf("%d sessions with the broker, want 1", n)
	}
	for _, d := range b.g.Snapshot().Devices {
		// A poll may be under way now, and one may have been when the device was removed.
		if reads := b.plant.count(b.plant.reads)[d.Name]; d.Polled+2 < uint64(reads) || len(d.Accounts) != 1 {
			t.Errorf("device %s: the account has %d readings of %d: it did not go on", d.Name, d.Polled, reads)
		}
	}
}

// TestReloadKeepsPollsInFlight: what a device answers while it is being replaced is not lost.
func TestReloadKeepsPollsInFlight(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{device("a")}})
	b.plant.mu.Lock()
	b.plant.slow, b.plant.busy = 50*time.Millisecond, make(chan struct{})
	b.plant.mu.Unlock()
	for i := range 8 {
		<-b.plant.busy // in the midst of a read
		b.reload(plan{devices: []string{device("a", fmt.Sprintf("timeout: %ds", 3+i%2))}})
	}
	b.polled(3, "a")
	b.delivered("a")
	if made := b.plant.count(b.plant.made)["a"]; made != 9 {
		t.Errorf("%d connections, want 9", made)
	}
}

// TestStopKeepsPollsInFlight: what a device answers while the gateway stops is not lost, and one that does not answer does not hold up the stop.
func TestStopKeepsPollsInFlight(t *testing.T) {
	for _, c := range []struct {
		slow time.Duration
		want bool // its poll in flight arrives
	}{{200 * time.Millisecond, true}, {time.Hour, false}} {
		b := newGatewayBed(t, plan{devices: []string{device("a")}})
		b.polled(1, "a")
		b.plant.mu.Lock()
		b.plant.slow, b.plant.busy = c.slow, make(chan struct{})
		b.plant.mu.Unlock()
		<-b.plant.busy
		reads := b.plant.count(b.plant.reads)["a"]
		b.stop()
		arrived := false
		b.mu.Lock()
		for _, payload := range b.seen["telemetry/shop/a/g"] {
			arrived = arrived || strings.Contains(payload, fmt.Sprintf(`"values":{"n":%d}`, reads))
		}
		b.mu.Unlock()
		if arrived != c.want {
			t.Errorf("a device that answers after %v: poll %d arrived: %v", c.slow, reads, arrived)
		}
	}
}

// TestReloadBringsBackADevice whose last poll of before is still in flight: the new line waits for it.
func TestReloadBringsBackADevice(t *testing.T) {
	a := device("a")
	b := newGatewayBed(t, plan{devices: []string{a, device("b")}})
	b.plant.mu.Lock()
	b.plant.slow, b.plant.busy = 400*time.Millisecond, make(chan struct{})
	b.plant.mu.Unlock()
	<-b.plant.busy
	<-b.plant.busy // both are in the midst of a read
	b.reload(plan{devices: []string{a}})
	b.reload(plan{devices: []string{a, device("b")}})
	b.polled(2, "b")
	b.delivered("a", "b")
	if made := b.plant.count(b.plant.made); !maps.Equal(made, map[string]int{"a": 1, "b": 2}) {
		t.Errorf("connections made: %v", made)
	}
}

// TestReloadMovesADeviceBetweenLines: a line ends before another takes its device or its url.
func TestReloadMovesADeviceBetweenLines(t *testing.T) {
	on := func(name, url string) string {
		return strings.Replace(device(name), `"fake://`+name, `"fake://`+url, 1)
	}
	b := newGatewayBed(t, plan{devices: []string{on("a", "one"), on("b", "one"), on("c", "two")}})
	b.plant.mu.Lock()
	b.plant.slow = 30 * time.Millisecond
	b.plant.mu.Unlock()
	b.polled(2, "a", "b", "c")
	change := b.reload(plan{devices: []string{on("a", "one"), on("b", "two"), on("c", "two")}})
	if got := change.String(); got != "changed: b; restarted because they share a connection: a, c; connections untouched: 0" {
		t.Errorf("change %q", got)
	}
	b.polled(3, "a", "b", "c")
	change = b.reload(plan{devices: []string{on("b", "two"), on("a", "two"), on("c", "one")}})
	if got := change.String(); got != "changed: a, c; restarted because they share a connection: b; connections untouched: 0" {
		t.Errorf("change %q", got)
	}
	b.polled(3, "a", "b", "c")
	b.delivered("a", "b", "c")
}

// TestReloadAsksFirstWhatAnswered: of the devices on a line the one that answered before is asked before those that a reload puts in front of it;
// one of these may be asked before that, because its tick comes first.
func TestReloadAsksFirstWhatAnswered(t *testing.T) {
	on := func(name string) string { return strings.Replace(device(name), `"fake://`+name, `"fake://one`, 1) }
	b := newGatewayBed(t, plan{devices: []string{on("good")}})
	b.polled(2, "good")
	var order []string
	b.plant.mu.Lock()
	b.plant.silent = func(name string) bool {
		order = append(order, name)
		return name != "good"
	}
	b.plant.mu.Unlock()
	b.reload(plan{devices: []string{on("a"), on("b"), on("c"), on("good")}})
	b.plant.mu.Lock()
	order = nil
	b.plant.mu.Unlock()
	b.polled(1, "a", "b", "c")
	b.plant.mu.Lock()
	defer b.plant.mu.Unlock()
	if i := slices.Index(order, "good"); i < 0 || i > 1 {
		t.Errorf("asked %q", order)
	}
}

func TestReloadOfADestination(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{device("a")}})
	b.polled(5, "a")
	for i := range 4 {
		change := b.reload(plan{devices: []string{device("a")}, cloud: fmt.Sprintf(", window: %d", 10+i)})
		if got := change.String(); got != "destinations that log in again: cloud; connections untouched: 1" {
			t.Errorf("change %q", got)
		}
		b.polled(10, "a")
	}
	b.delivered("a")
	if change := b.reload(plan{devices: []string{device("a")}, cloud: ", window: 13, start: oldest"}); change.String() != "nothing changed" {
		t.Errorf("start of a destination that the store knows: %q", change)
	}
	b.polled(10, "a")
	if n := b.broker.Stats().Connects; n != 5 {
		t.Errorf("%d sessions with the broker, want 5", n)
	}
	if made := b.plant.count(b.plant.made)["a"]; made != 1 {
		t.Errorf("%d connections to the device, want 1", made)
	}
}

// TestReloadDestinations adds and removes a destination two hundred times under load: the other one keeps its session and
// gets everything, the added one begins where its start says, and what it leaves behind stays until it is forgotten.
func TestReloadDestinations(t *testing.T) {
	var devices, names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("d%02d", i))
		devices = append(devices, device(names[i]))
	}
	b := newGatewayBed(t, plan{devices: devices})
	guest := brokersim.New(brokersim.Options{})
	if err := guest.Start(); err != nil {
		t.Fatal(err)
	}
	defer guest.Stop()
	with := func(start string) plan {
		return plan{devices: devices, cloud: fmt.Sprintf("}\n  - {name: guest, client_id: guest, start: %s, url: \"mqtt://%s\"", start, guest.Addr())}
	}
	without := plan{devices: devices}
	b.polled(5, names...)
	for i := range 200 {
		start := []string{"now", "oldest"}[i%2]
		if change := b.reload(with(start)); change.String() != "destinations added: guest; connections untouched: 20" {
			t.Fatalf("change %q", change)
		}
		if i%50 == 0 {
			before := guest.Stats().Received
			for end := time.Now().Add(20 * time.Second); guest.Stats().Received < before+5; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("round %d: the guest got %d messages", i, guest.Stats().Received-before)
				}
			}
		}
		if change := b.reload(without); change.String() != "destinations removed (they get nothing new, and what they have not acknowledged is kept until `millrace buffer forget NAME`): guest; connections untouched: 20" {
			t.Fatalf("change %q", change)
		}
		if i%3 == 0 {
			if _, err := b.g.Buffer().Forget("guest"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if b.g.Buffer().Destination("guest") != nil {
		t.Error("the guest is still in use")
	}
	b.polled(5, names...)
	b.delivered(names...)
	if n := b.broker.Stats().Connects; n != 1 {
		t.Errorf("%d sessions with the broker of the destination that stayed, want 1", n)
	}
	for name, made := range b.plant.count(b.plant.made) {
		if made != 1 {
			t.Errorf("%d connections made to %s, want 1", made, name)
		}
	}
}

func TestReloadRefusals(t *testing.T) {
	good := plan{devices: []string{device("a"), device("b")}}
	b := newGatewayBed(t, good)
	b.polled(3, "a", "b")
	with := func(f func(*plan)) plan { p := good; f(&p); return p }
	b.refuse(with(func(p *plan) { p.top = "nonsense: true\n" }), "millrace.yaml:3:1: unknown key \"nonsense\"")
	mistakes := func(want int) {
		t.Helper()
		if c := b.g.Snapshot().Config; c.Mistakes != want || c.Problem == "" {
			t.Errorf("%d mistakes in %q, want %d", c.Mistakes, c.Problem, want)
		}
	}
	mistakes(1)
	b.refuse(with(func(p *plan) { p.devices = []string{device("a"), device("a")} }), "already defined")
	b.refuse(with(func(p *plan) { p.devices = []string{strings.Replace(device("c"), "fake://", "fake://unbuildable", 1)} }), "no such equipment", "buy some")
	b.refuse(with(func(p *plan) { p.buffer = ", max_age: 2h, memory: 1MiB" }), "buffer.max_age, buffer.memory cannot change while", "restart")
	mistakes(0)
	b.refuse(with(func(p *plan) { p.top = "log: {format: json}\n" }), "log.format cannot change")
	b.refuse(with(func(p *plan) { p.top = fmt.Sprintf("web: {listen: \"%s\"}\n", b.broker.Addr()) }), "listen for the web page")
	if err := os.Remove(b.file); err != nil {
		t.Fatal(err)
	}
	if _, err := b.g.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("without the file: %v", err)
	}
	if change := b.reload(good); change.String() != "nothing changed" {
		t.Errorf("back to the old config: %q", change)
	}
	if c := b.g.Snapshot().Config; c.Problem != "" || c.Reloads != 1 || c.Refused != 7 {
		t.Errorf("after a reload that was done: %+v", c)
	}
	b.polled(3, "a", "b")
	b.delivered("a", "b")
	if made := b.plant.count(b.plant.made); !maps.Equal(made, map[string]int{"a": 1, "b": 1}) || b.broker.Stats().Connects != 1 {
		t.Errorf("a refused reload made connections: %v, %d sessions", made, b.broker.Stats().Connects)
	}
	if log := b.log.String(); !strings.Contains(log, `unknown key`) || !strings.Contains(log, "stays in force") {
		t.Error("the log does not tell of the refusals")
	}
}

func TestReloadOfSettings(t *testing.T) {
	devices := []string{device("a")}
	b := newGatewayBed(t, plan{devices: devices})
	b.polled(1, "a")
	change := b.reload(plan{top: "web: {listen: \"127.0.0.1:0\"}\nlog: {level: warn}\n", devices: devices})
	if got := change.String(); got != "settings: log.level, web; connections untouched: 1" {
		t.Errorf("change %q", got)
	}
	if len(b.level) == 0 || b.level[len(b.level)-1] != "warn" {
		t.Errorf("log levels set: %q", b.level)
	}
	address := b.g.running.page.listener.Addr().String()
	if body, _ := ask(t, address); !strings.Contains(body, change.Hash) {
		t.Errorf("the page shows another config than %s: %.300s", change.Hash, body)
	}
	b.reload(plan{devices: devices})
	waitFor(t, "the end of the page, which is told to end and not waited for", func() bool { _, err := ask(t, address); return err != nil })
}

// TestReloadWhileStopping: nothing is started that nobody would stop.
func TestReloadWhileStopping(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{device("a")}})
	b.polled(1, "a")
	b.g.finish()
	b.write(plan{devices: []string{device("b")}, top: "web: {listen: \"127.0.0.1:0\"}\n"})
	if _, err := b.g.Reload(t.Context()); !errors.Is(err, errStopping) {
		t.Errorf("reload of a gateway that stops: %v", err)
	}
	if reads := b.plant.count(b.plant.reads)["b"]; reads != 0 {
		t.Errorf("%d reads of a device that was never to run", reads)
	}
}

// TestReloadManyTimes: reloads under load lose nothing, and leave neither goroutines nor memory behind.
func TestReloadManyTimes(t *testing.T) {
	var devices []string
	for i := range 20 {
		devices = append(devices, device(fmt.Sprintf("d%02d", i)))
	}
	b := newGatewayBed(t, plan{devices: devices})
	names := []string{"d00", "d01", "d02", "d19"}
	b.polled(5, names...)
	round := func(i int) {
		changed := slices.Clone(devices)
		changed[1] = device("d01", fmt.Sprintf("timeout: %ds", 3+i%2))
		if i%2 == 0 {
			changed = slices.Delete(changed, 2, 3)
		}
		b.reload(plan{devices: changed})
		time.Sleep(5 * time.Millisecond)
	}
	for i := range 20 {
		round(i)
	}
	b.polled(1, names[0])
	goroutines, heap := runtime.NumGoroutine(), heapInUse()-b.kept()
	for i := range 100 {
		round(i)
	}
	b.polled(5, "d00", "d01", "d19")
	if now := runtime.NumGoroutine(); now > goroutines+10 {
		t.Errorf("%d goroutines after 100 reloads, %d before", now, goroutines)
	}
	if now := heapInUse() - b.kept(); now > heap+2<<20 {
		t.Errorf("%d bytes of heap after 100 reloads, %d before", now, heap)
	}
	b.delivered(names...)
	made := b.plant.count(b.plant.made)
	if made["d00"] != 1 || made["d19"] != 1 || made["d01"] < 50 || b.broker.Stats().Connects != 1 {
		t.Errorf("connections %v, %d sessions: what did not change was not left alone, or what did was", made, b.broker.Stats().Connects)
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkReload reloads a config of 1,000 connections with 50 tags each, one of which changed, on one processor as
// `millrace run` has it, and reports the latest start of a poll after its tick.
func BenchmarkReload(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	tags := make([]string, 50)
	for i := range tags {
		tags[i] = fmt.Sprintf("{name: tag-%d, address: a, unit: kW, scale: 0.1}", i)
	}
	large := func(name string, more ...string) string {
		return strings.NewReplacer("20ms", "1s", "{name: n, address: a}", strings.Join(tags, ", ")).Replace(device(name, more...))
	}
	var devices []string
	for i := range 1000 {
		devices = append(devices, large(fmt.Sprintf("d%03d", i)))
	}
	bed := newGatewayBed(b, plan{devices: devices})
	bed.polled(2, "d000", "d999")
	variant := 0
	for b.Loop() {
		variant++
		devices[500] = large("d500", fmt.Sprintf("timeout: %ds", 3+variant%2))
		bed.reload(plan{devices: devices})
	}
	var late time.Duration
	var missed uint64
	for _, d := range bed.g.Snapshot().Devices {
		late, missed = max(late, d.Groups[0].MaxLate), missed+d.Groups[0].Overruns
	}
	b.ReportMetric(late.Seconds()*1e3, "ms-late")
	b.ReportMetric(float64(missed), "ticks-missed")
}

// TestConfigGoesAsItIsBuilt: with many tags the config is as large as all that is made of it.
func TestConfigGoesAsItIsBuilt(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{device("a"), device("b")}})
	b.polled(1, "a", "b")
	b.write(plan{devices: []string{device("a"), device("b", "timeout: 3s"), device("c")}})
	cfg, err := config.Load(b.file, b.plant.protocols(), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	next, err := b.g.prepare(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.g.discard(next)
	for _, d := range cfg.Devices {
		if d.Groups != nil {
			t.Errorf("device %s of a config that was built still has its groups", d.Name)
		}
	}
}

// TestReloadOfWrites: what may be written changes at once, and no device notices.
func TestReloadOfWrites(t *testing.T) {
	devices := []string{device("a"), device("b")}
	allow := "writes:\n  - {device: a, tag: n, min: 0, max: 10, rate: 10/s}\n"
	b := newGatewayBed(t, plan{devices: devices})
	b.polled(3, "a", "b")
	write := func() error {
		_, err := b.g.Write(t.Context(), "a", "n", "1")
		return err
	}
	if err := write(); !errors.Is(err, command.ErrNotAllowed) {
		t.Errorf("before it is allowed: %v", err)
	}
	for _, c := range []struct {
		top  string
		want error // the machine takes no writes: a command that comes so far was allowed
	}{{allow, errRefused}, {"", command.ErrNotAllowed}, {allow, errRefused}} {
		if got := b.reload(plan{devices: devices, top: c.top}).String(); got != "settings: writes; connections untouched: 2" {
			t.Errorf("change %q", got)
		}
		if err := write(); !errors.Is(err, c.want) {
			t.Errorf("with %q: %v, want %v", c.top, err, c.want)
		}
	}
	b.reload(plan{devices: []string{device("a", "timeout: 3s"), device("b")}, top: allow})
	b.polled(5, "a", "b")
	if err := write(); !errors.Is(err, errRefused) {
		t.Errorf("over a new connection: %v", err)
	}
	if got, want := b.g.Snapshot().Commands, []web.Commands{{Refused: 2}, {Device: "a", Failed: 2}}; !slices.Equal(got, want) { // its counts outlive a reload that keeps its rule
		t.Errorf("commands %+v, want %+v", got, want)
	}
	if made := b.plant.count(b.plant.made); made["a"] != 2 || made["b"] != 1 {
		t.Errorf("connections made: %v, want a 2 (its timeout changed), b 1", made)
	}
}

// TestReloadSaysWhatStandsStill: a destination that is added hears of a value that does not change late, and the answer says so.
func TestReloadSaysWhatStandsStill(t *testing.T) {
	guest := "}\n  - {name: guest, client_id: guest, url: \"mqtt://127.0.0.1:1\""
	onChange := strings.Replace(device("b"), "interval: 20ms", "interval: 20ms, report: on-change", 1)
	for _, c := range []struct {
		before, after []string
		want          bool
	}{
		{[]string{device("a")}, []string{device("a")}, false},
		{[]string{device("a"), onChange}, []string{device("a"), onChange}, true},
		{[]string{device("a")}, []string{device("a"), onChange}, false}, // it is read anew
	} {
		b := newGatewayBed(t, plan{devices: c.before})
		b.polled(2, "a")
		change := b.reload(plan{devices: c.after, cloud: guest})
		if said := strings.Contains(change.String(), "destinations added: guest; what is pushed (OPC UA) or reported on change goes to an added destination when"); said != c.want || change.Still != c.want {
			t.Errorf("%v: %q", c.after, change)
		}
		if again := b.reload(plan{devices: c.after, cloud: guest}); again.Still {
			t.Errorf("nothing is added: %q", again)
		}
	}
}

// pushing is a driver whose device pushes some groups.
type pushing struct {
	drivers.Driver
	requests []int
}

func (p pushing) Plan(drivers.Ref) []string    { return nil }
func (p pushing) Requests(ref drivers.Ref) int { return p.requests[ref.Group] }

// TestStill: what is pushed stands still.
func TestStill(t *testing.T) {
	c := config.Connection{Devices: []*config.Device{{Groups: make([]config.Group, 2)}}}
	if still(&c, pushing{requests: []int{1, 1}}) || !still(&c, pushing{requests: []int{1, 0}}) {
		t.Error("a device that pushes is not told from one that is polled")
	}
}
