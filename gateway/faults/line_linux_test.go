package faults

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/drivers/drivertest"
)

// The flags of the fault bed: go test ./gateway/faults -run TestFault/F1 -long -seed 7
var (
	long = flag.Bool("long", os.Getenv("FAULTS") == "long", "run the long form of each scenario (hours for all); also FAULTS=long")
	seed = flag.Uint64("seed", 0, "seed of the scenarios' random choices; 0 = a new one, printed")
)

// pick returns the short or the long form of a scenario's size.
func pick[T any](short, longer T) T {
	if *long {
		return longer
	}
	return short
}

// random returns the scenario's source of chance and prints how to repeat it.
func random(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -seed %d", s)
	return rand.New(rand.NewPCG(s, 1))
}

// program is something that a test needs and that Go does not bring.
type program struct {
	name    string
	look    func() error
	install string
}

func mosquitto() program {
	return program{"mosquitto", func() error { _, err := LookMosquitto(); return err }, "apt-get install mosquitto"}
}

// need skips the test when a program is missing, or fails it with INTEROP=required in the environment.
func need(t *testing.T, programs ...program) {
	t.Helper()
	for _, p := range programs {
		err := p.look()
		if err == nil {
			continue
		}
		drivertest.Lacks(t, "needs %s (%v); %s", p.name, err, p.install)
	}
}

// millrace builds the gateway once for all tests. FAULTS_RACE=1 builds it with the race detector.
var millrace = sync.OnceValues(func() (string, error) {
	if err := dependOnSources("../.."); err != nil {
		return "", err
	}
	return Build(buildDir(), os.Getenv("FAULTS_RACE") == "1")
})

// dependOnSources looks at every file of the module's Go code, because `go test` keeps the result of a package
// whose inputs have not changed and would not know that the gateway's sources are inputs of this one.
func dependOnSources(module string) error {
	return filepath.WalkDir(module, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := e.Name(); e.IsDir() && (name == "testdata" || name == "node_modules" || len(name) > 2 && name[0] == '.') {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "go.mod") {
			_, err = os.Stat(path)
		}
		return err
	})
}

func buildDir() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("millrace-faults-%d", os.Getpid()))
}

func TestMain(m *testing.M) {
	if at := os.Getenv(diskAt); at != "" {
		serveDisk(at, os.Getenv(diskOf))
		return
	}
	if os.Getenv("GORACE") == "" { // a program with the race detector sleeps a second at its end, else
		os.Setenv("GORACE", "atexit_sleep_ms=100")
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue && runtime.NumCPU() < 4 {
		f.Value.Set("4") // most of a scenario is waiting
	}
	code := m.Run()
	os.RemoveAll(buildDir())
	os.Exit(code)
}

// bed is the whole line: devices → gateway → proxy → tap → mosquitto → subscriber.
type bed struct {
	t       *testing.T
	dir     string
	setup   Setup
	devices []*Device
	peers   []*peer
	net     *Proxy // between gateway and broker
	tap     *Tap
	broker  *Mosquitto
	sub     *Subscriber
	gateway *Gateway

	begin        time.Time
	kills        []Kill
	stops        []time.Time
	excused      map[string]bool
	passed       map[string]int
	window       time.Duration // of a kill
	machine      machine
	brokerKilled bool
	patience     time.Duration // of settle
	peakRSS      int64

	reading   sync.Mutex
	ofDevices map[string]*ofDevice
}

// newBed starts everything but the gateway. setup says what is not usual about the config.
func newBed(t *testing.T, devices int, setup Setup) *bed {
	t.Helper()
	need(t, mosquitto())
	b := &bed{t: t, dir: t.TempDir(), setup: setup, begin: time.Now(), patience: 60 * time.Second, excused: map[string]bool{}, ofDevices: map[string]*ofDevice{}}
	must(t, b.plant(devices))
	var err error
	b.broker, err = StartMosquitto(b.dir)
	must(t, err)
	t.Cleanup(b.broker.Kill)
	b.tap, err = NewTap(b.broker.Addr())
	must(t, err)
	t.Cleanup(b.tap.Close)
	b.net, err = NewProxy(b.tap.Addr())
	must(t, err)
	t.Cleanup(b.net.Close)
	b.sub, err = Subscribe(b.broker.Addr())
	must(t, err)
	t.Cleanup(b.sub.Close)
	must(t, b.prepare())
	b.watchMachine()
	return b
}

func (b *bed) plant(n int) error {
	for i := range n {
		d, err := NewDevice(fmt.Sprintf("%s%02d", or(b.setup.Gateway, "d"), i), b.setup.Words)
		if err != nil {
			return err
		}
		b.t.Cleanup(d.Down)
		b.devices = append(b.devices, d)
	}
	return nil
}

// prepare builds the gateway and writes its config; the caller starts it.
func (b *bed) prepare() error {
	path, err := millrace()
	if err != nil {
		return err
	}
	web, err := freeAddr(ownHost())
	if err != nil {
		return err
	}
	s := &b.setup
	s.Web, s.Broker, s.Devices = web, b.net.Addr(), b.devices
	s.Path = or(s.Path, filepath.Join(b.dir, "data"))
	file := filepath.Join(b.dir, "millrace.yaml")
	b.gateway = &Gateway{Binary: path, Config: file, Web: s.Web}
	b.t.Cleanup(b.end)
	return s.Write(file)
}

// end kills the gateway, and shows its log when the test failed.
func (b *bed) end() {
	b.gateway.Kill()
	if crash := b.gateway.Crash(); crash != "" {
		b.t.Errorf("the gateway crashed: %s", crash)
	}
	if b.t.Failed() {
		log := strings.Join(slices.DeleteFunc(strings.SplitAfter(b.gateway.Log(), "\n"), func(line string) bool {
			return strings.Contains(line, `msg="device answers"`) || strings.Contains(line, "late since") || strings.Contains(line, "no longer late")
		}), "")
		if len(log) > 12000 {
			log = log[:4000] + "\n...\n" + log[len(log)-8000:]
		}
		b.t.Logf("log of the gateway, but for what it says of devices that answer and that are late:\n%s", log)
	}
}

func (b *bed) start() {
	b.t.Helper()
	if n := len(b.kills); n > 0 && b.kills[n-1].Restarted.IsZero() {
		b.kills[n-1].Restarted = time.Now()
	}
	must(b.t, b.gateway.Start())
}

// kill ends the gateway with SIGKILL, and waits until the devices have answered what it had asked: on a busy machine such an answer
// may otherwise be given after the restart, and count as one to the new process.
func (b *bed) kill() {
	b.noteRSS()
	b.kills = append(b.kills, Kill{At: b.gateway.Kill()})
	for _, d := range b.devices {
		must(b.t, d.AwaitIdle(time.Minute))
	}
	for _, p := range b.peers {
		p.awaitIdle(time.Minute)
	}
}

// stop ends the gateway with SIGTERM; it must exit 0.
func (b *bed) stop() {
	b.t.Helper()
	b.noteRSS()
	b.stops = append(b.stops, time.Now())
	code, err := b.gateway.Stop(30 * time.Second)
	must(b.t, err)
	if code != 0 {
		b.t.Fatalf("the gateway ended with %d after SIGTERM, want 0", code)
	}
}

func (b *bed) noteRSS() { b.peakRSS = max(b.peakRSS, b.gateway.PeakRSS()) }

// restartBroker starts a killed broker. New connections of the gateway wait for the recorder's
// subscription, so that nothing is acknowledged that nobody would receive.
func (b *bed) restartBroker(more ...string) {
	b.t.Helper()
	sessions := b.sub.Sessions()
	b.net.Refuse()
	must(b.t, b.broker.Start(more...))
	must(b.t, b.sub.Await(sessions+1, 20*time.Second))
	must(b.t, b.net.Accept())
}

// killBroker ends the broker with SIGKILL. From now on an arrival is what the broker acknowledged.
func (b *bed) killBroker() {
	b.brokerKilled = true
	b.broker.Kill()
}

// await waits for n messages at the subscriber.
func (b *bed) await(n int, d time.Duration) {
	b.t.Helper()
	b.until(d, fmt.Sprintf("%d messages", n), func() bool { return len(b.sub.Arrivals()) >= n })
}

// until waits for a condition and fails the test when it does not come.
func (b *bed) until(d time.Duration, what string, done func() bool) {
	b.t.Helper()
	waitFor(b.t, d, what, done)
}

// logs waits until the log holds a text: what a process writes comes a moment after what it tells of.
func (b *bed) logs(text string) {
	b.t.Helper()
	b.until(time.Minute, fmt.Sprintf("the log to say %q", text), func() bool { return strings.Contains(b.gateway.Log(), text) })
}

func waitFor(t *testing.T, d time.Duration, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s for %s, and it did not come", d, what)
		}
	}
}

func (b *bed) account(until time.Time) *Account {
	stalls, _ := b.machine.stalled()
	a := &Account{Words: b.setup.Words, Until: until, Kills: b.kills, Window: b.window, Stops: b.stops, Stalls: stalls, Late: b.late(),
		OldestFirst: b.setup.Order == "oldest-first", Excused: b.excused, Passed: maps.Clone(b.passed)}
	a.Arrivals = b.sub.Arrivals() // before what was served: nothing may seem to arrive unserved
	if b.brokerKilled {
		a.Arrivals = b.tap.Arrivals()
	}
	for _, d := range b.devices {
		a.Served = append(a.Served, d.Served()...)
	}
	for _, p := range b.peers {
		a.Served = append(a.Served, p.served()...)
	}
	return a
}

// late returns from how long a stall of the machine on an answer may come after the driver has given it up: the device's
// time-out runs while the machine stands still, and part of it may be over.
func (b *bed) late() time.Duration {
	timeout, err := time.ParseDuration(or(b.setup.Timeout, deviceTimeout))
	must(b.t, err)
	return timeout * 2 / 5
}

// stoodStill returns when the machine itself stood still for d or longer.
func (b *bed) stoodStill(d time.Duration) []Stall {
	stalls, _ := b.machine.stalled()
	return slices.DeleteFunc(stalls, func(s Stall) bool { return s.To.Sub(s.From) < d })
}

// settle waits until everything served so far has arrived or is gone, and returns the report; it does not
// judge. What the gateway still holds is not gone, also where a kill would excuse its loss, and on a machine that has no time for it takes five times as long.
func (b *bed) settle() *Report {
	now := time.Now()
	for end := now.Add(b.patience); ; time.Sleep(300 * time.Millisecond) {
		late, holds := time.Now().After(end), b.holds()
		if late && holds && b.machine.starved(now, time.Now()) >= tooBusy {
			late = time.Now().After(end.Add(4 * b.patience))
		}
		if !late && holds {
			continue
		}
		r := b.account(now).Check()
		if r.Lost > 0 && late && !b.brokerKilled { // what has just been acknowledged may still be on its way to the recorder
			if err := b.sub.Drain(time.Minute); err != nil {
				b.t.Log(err)
			}
			r = b.account(now).Check()
		}
		if r.Lost == 0 || late {
			return r
		}
	}
}

// holds tells whether the gateway still has a backlog: more than the latest poll of each group.
func (b *bed) holds() bool {
	if !b.gateway.Running() {
		return false
	}
	s, err := b.gateway.Snapshot()
	return err != nil || len(s.Destinations) == 0 || s.Destinations[0].BacklogRecords > uint64(len(b.devices)+2*len(b.peers))
}

// judge settles and fails the test unless every promise was kept. It prints the figures of RESULTS.md.
func (b *bed) judge() *Report {
	b.t.Helper()
	begin := time.Now()
	r := b.settle()
	b.noteRSS()
	_, stalled := b.machine.stalled()
	b.t.Logf("FIGURES %s: %s; settled in %.1f s, peak RSS %.1f MiB, machine stalled up to %d ms",
		b.t.Name(), r, time.Since(begin).Seconds(), float64(b.peakRSS)/(1<<20), stalled.Milliseconds())
	if r.Parts > 0 && stalled < b.late() {
		b.t.Errorf("%d answers were read in parts though no device was silent: they need not arrive, so they prove nothing", r.Parts)
	}
	if r.Served == 0 {
		b.t.Fatal("no device served anything: the scenario proves nothing")
	}
	if err := r.Err(); err != nil {
		b.t.Error(err)
		if s, err := b.gateway.Snapshot(); err == nil && len(s.Destinations) > 0 {
			b.t.Errorf("the gateway still has %d records to send: what is in them is late, and not lost", s.Destinations[0].BacklogRecords)
		}
		passed := b.tap.Arrivals() // before what was served, as in account
		a := b.account(begin)
		a.Arrivals = passed
		b.t.Errorf("by what the broker has acknowledged: %s; the recorder subscribed %d times, the gateway connected at %v; the broker says:\n%s",
			a.Check(), b.sub.Sessions(), b.tap.Connects(), b.broker.log.String())
	}
	b.balance()
	return r
}

// balance asks the gateway for its own ledger, which must be balanced within a moment.
func (b *bed) balance() {
	b.t.Helper()
	if !b.gateway.Running() {
		return
	}
	var last int64
	for range 50 {
		s, err := b.gateway.Snapshot()
		if err != nil {
			b.t.Errorf("the gateway's own ledger: %v", err)
			return
		}
		if last = s.Imbalance(); last == 0 {
			return
		}
		time.Sleep(37 * time.Millisecond)
	}
	b.t.Errorf("the gateway's own ledger leaves %d readings unexplained", last)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a command to its end and returns its exit code and output.
func run(name string, args ...string) (int, string) {
	cmd := exec.Command(name, args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		return -1, err.Error()
	}
	return cmd.ProcessState.ExitCode(), strings.TrimSpace(string(out))
}
