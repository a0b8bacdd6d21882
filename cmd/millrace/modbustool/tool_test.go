package modbustool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/modbus/modbussim"
	"millrace/gateway/config"
)

var errFailed = errors.New("failed")

// run runs `millrace modbus ARGS` and returns what it printed, and its error.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return runContext(t.Context(), args...)
}

func runContext(ctx context.Context, args ...string) (string, error) {
	protocols := func() []drivers.Protocol { return []drivers.Protocol{modbus.Protocol()} }
	cmd := New(Host{
		Protocols: protocols,
		StorePath: func(file string) (string, error) { return config.StorePath(file, protocols(), config.Options{}) },
		Failed:    func(err error) error { return fmt.Errorf("%w: %w", errFailed, err) },
	})
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err := cmd.ExecuteContext(ctx)
	return out.String(), err
}

func startSim(t *testing.T) *modbussim.Server {
	t.Helper()
	s, err := modbussim.Start(modbussim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// has fails the test unless a text has all the others in it.
func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in:\n%s", p, text)
		}
	}
}

func TestRead(t *testing.T) {
	sim := startSim(t)
	sim.Unit(1).SetRegisters(modbussim.Holding, 100, 0x42f6, 0xe979, 230, 0x5072, 0x6573, 0x7321)
	sim.Unit(1).SetBits(modbussim.Coil, 7, true)
	sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: modbussim.Touching(1, modbussim.Holding, 102, 102)})
	out, err := run(t, "read", sim.URL(), "40101", "--count", "6")
	if err != nil {
		t.Fatal(err)
	}
	has(t, out, "holding:100  (40101)  42F6  float32 ABCD 123.456", "exception 2: illegal data address", `string ABCD "Press!"`)
	if out, err = run(t, "read", sim.URL(), "coil:6", "--count", "2"); err != nil {
		t.Fatal(err)
	}
	has(t, out, "coil:6  (00007)  0", "coil:7  (00008)  1")
	if out, err = run(t, "read", sim.URL(), "holding:100", "--count", "2", "--all"); err != nil {
		t.Fatal(err)
	}
	has(t, out, "42 F6 E9 79", "uint32   CDAB  3917038326", "float32  DCBA")
}

// TestReadBounds: a device that refuses everything, or says nothing, ends a read soon, with a reason.
func TestReadBounds(t *testing.T) {
	sim := startSim(t)
	sim.Unit(1)
	refuse := sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2})
	if _, err := run(t, "read", sim.URL(), "holding:0", "--count", "2000"); !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "refuses all") {
		t.Errorf("all refused: %v", err)
	}
	if _, err := run(t, "read", sim.URL(), "holding:0", "--count", "1"); !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "refuses it;") {
		t.Errorf("one refused: %v", err)
	}
	if n := sim.Requests(); n > 2*maxNo {
		t.Errorf("%d requests for nothing", n)
	}
	refuse()
	remove := sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.Touching(1, modbussim.Holding, 3, 3)})
	out, err := run(t, "read", sim.URL(), "holding:0", "--count", "9", "--timeout", "50ms")
	if err != nil || strings.Count(out, "  0000  ") != 8 || !strings.Contains(out, "no answer within 50ms") {
		t.Errorf("a silent register: %v\n%s", err, out)
	}
	remove()
	before := sim.Requests()
	remove = sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.Touching(1, modbussim.Holding, 1, 65535)})
	if out, err = run(t, "read", sim.URL(), "holding:0", "--count", "1000", "--timeout", "20ms"); err != nil || sim.Requests()-before > maxLost+20 {
		t.Errorf("all but one are silent: %v, %d requests", err, sim.Requests()-before)
	}
	has(t, out, "not asked")
	remove()
	before = sim.Requests()
	sim.Inject(modbussim.Fault{Kind: modbussim.Silence})
	if _, err := run(t, "read", sim.URL(), "holding:0", "--count", "2000", "--timeout", "50ms"); !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Errorf("silence: %v", err)
	}
	if n := sim.Requests() - before; n > 3 {
		t.Errorf("%d requests into silence", n)
	}
	for _, args := range [][]string{{"read", sim.URL(), "100"}, {"read", sim.URL(), "holding:65535", "--count", "2"}, {"read", sim.URL(), "holding:1", "--count", "0"}, {"read", sim.URL(), "holding:1.3"}} {
		if _, err := run(t, args...); err == nil || errors.Is(err, errFailed) {
			t.Errorf("%q: %v, want wrong usage", args, err)
		}
	}
	for _, args := range [][]string{{"read", "tpc://h", "holding:1"}, {"read", sim.URL(), "holding:1", "--timeout", "2h"}, {"read", sim.URL(), "holding:1", "--option", "acept_unit=1"}, {"read", sim.URL(), "holding:1", "--option", "unit=1"}, {"read", sim.URL(), "holding:1", "--config", "none.yaml"}} {
		if _, err := run(t, args...); !errors.Is(err, errFailed) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestIdentify(t *testing.T) {
	sim := startSim(t)
	sim.Unit(1)
	sim.Unit(2).Identify("Acme", "PX\x1b1", "1.2")
	out, err := run(t, "identify", sim.URL(), "--unit", "2")
	if err != nil {
		t.Fatal(err)
	}
	has(t, out, `vendor: "Acme"`, `product code: "PX\x1b1"`, "function 17: exception 1: illegal function")
	if out, err = run(t, "identify", sim.URL()); err != nil {
		t.Fatal(err) // it answers, though it does not know
	}
	has(t, out, "function 43/14: exception 1: illegal function")
	sim.Inject(modbussim.Fault{Kind: modbussim.Silence})
	if _, err = run(t, "identify", sim.URL(), "--timeout", "50ms"); !errors.Is(err, errFailed) {
		t.Errorf("a silent device: %v", err)
	}
}

// TestIdentifySunSpec walks the chain of models, also one that has no end.
func TestIdentifySunSpec(t *testing.T) {
	sim := startSim(t)
	u := sim.Unit(1)
	u.SetRegisters(modbussim.Holding, 40000, 0x5375, 0x6e53, 1, 66)
	u.SetRegisters(modbussim.Holding, 40070, 103, 50)
	u.SetRegisters(modbussim.Holding, 40122, 0xffff, 0)
	out, err := run(t, "identify", sim.URL())
	if err != nil {
		t.Fatal(err)
	}
	has(t, out, "SunSpec from holding:40000 on\n    model 1 at holding:40002, 66 registers\n    model 103 at holding:40070, 50 registers: millrace template sunspec-inverter --base 40070\n")
	if strings.Contains(out, "65535") {
		t.Errorf("the end is shown as a model:\n%s", out)
	}
	sim.Unit(2).SetRegisters(modbussim.Holding, 40000, 0x5375, 0x6e53) // and then nothing but zeros
	before := sim.Requests()
	if _, err = run(t, "identify", sim.URL(), "--unit", "2"); err != nil || sim.Requests()-before > 2*maxModels {
		t.Errorf("a chain without an end: %v, %d requests", err, sim.Requests()-before)
	}
}

func FuzzParseObjects(f *testing.F) {
	f.Add([]byte{43, 14, 1, 0x81, 0, 0, 1, 0, 3, 'a', 'b', 'c'})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _, _, err := parseObjects(b)
		if n := len(b); err == nil && len(list) != int(b[6]) || 2*len(list) > n {
			t.Errorf("%d objects of %d bytes", len(list), n)
		}
	})
}

func TestWrite(t *testing.T) {
	sim := startSim(t)
	sim.Unit(1).SetRegisters(modbussim.Holding, 10, 7)
	before := func() string { out, _ := run(t, "read", sim.URL(), "holding:10"); return out }
	was := before()
	out, err := run(t, "write", sim.URL(), "holding:10", "--type", "int16", "--", "-5")
	if !errors.Is(err, errFailed) || before() != was {
		t.Errorf("without --yes: %v", err)
	}
	has(t, out, "now 7")
	if out, err = run(t, "write", sim.URL(), "holding:10", "--type", "int16", "--yes", "--", "-5"); err != nil {
		t.Fatal(err)
	}
	has(t, out, "now 7", "-5 written and confirmed; now -5")
	has(t, before(), "FFFB")
	if out, err = run(t, "write", sim.URL(), "coil:3", "true", "--yes"); err != nil {
		t.Fatal(err)
	}
	has(t, out, "now true")
	with23 := 0
	sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Match: func(q modbussim.Request) bool {
		if q.Write == 23 {
			with23++
		}
		return false
	}})
	if out, err = run(t, "write", sim.URL(), "holding:10", "258", "--function", "23", "--yes"); err != nil || with23 != 1 {
		t.Fatal(with23, err)
	}
	has(t, out, "now 65531", "258 written and confirmed; now 258")
	if _, err = run(t, "write", sim.URL(), "coil:3", "true", "--function", "23", "--yes"); err == nil || !strings.Contains(err.Error(), "it does not write to coil:3") {
		t.Error(err)
	}
	sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 3, Match: func(q modbussim.Request) bool { return q.Write != 0 }})
	for _, args := range [][]string{{"holding:10", "70000"}, {"holding:10", "1.5"}, {"input:10", "1"}, {"holding:10", "x"}, {"holding:10", "8"}} {
		if out, err := run(t, append([]string{"write", sim.URL(), args[0], args[1], "--yes"}, args[2:]...)...); !errors.Is(err, errFailed) || strings.Contains(out, "written") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
}

// scanned is a device with two ranges, an island and a table that it does not know.
func scanned(t *testing.T) *modbussim.Server {
	sim := startSim(t)
	sim.Unit(3)
	hole := func(first, last uint16) {
		sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: modbussim.Touching(3, modbussim.Holding, first, last)})
	}
	hole(0, 4)
	hole(73, 119)
	hole(200, 65535)
	sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 1, Match: modbussim.Touching(3, modbussim.Input, 0, 65535)})
	sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.OfUnit(5)})
	return sim
}

const scanWant = "unit 3\n  holding: 5-72, 120-199\n  input: nothing: exception 1: illegal function\n1 of 6 unit ids answer; "
const scanHint = "those that do not were asked for holding:0 only"

func scanArgs(sim *modbussim.Server, more ...string) []string {
	return append([]string{"scan", sim.URL(), "--units", "1-5,9", "--tables", "holding,input", "--to", "400", "--block", "50", "--timeout", "50ms", "--pause", "0", "--fine", "1"}, more...)
}

func TestScan(t *testing.T) {
	sim := scanned(t)
	out, err := run(t, scanArgs(sim)...)
	if err != nil {
		t.Fatal(err)
	}
	has(t, out, scanWant)
	has(t, out, scanHint)
}

// TestScanResumes interrupts a scan at several places; the same command goes on and asks nothing twice but the piece in hand.
func TestScanResumes(t *testing.T) {
	sim := scanned(t)
	if _, err := run(t, scanArgs(sim)...); err != nil {
		t.Fatal(err)
	}
	whole := sim.Requests()
	file := filepath.Join(t.TempDir(), "a.scan")
	start := sim.Requests()
	for cut := range uint64(8) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for sim.Requests() < start+whole*cut/8+3 && ctx.Err() == nil {
				time.Sleep(100 * time.Microsecond)
			}
			cancel()
		}()
		_, _ = runContext(ctx, scanArgs(sim, "--out", file)...)
		cancel()
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, `{"unit":3,"tab`) // and a crash in the midst of a line
		f.Close()
	}
	out, err := run(t, scanArgs(sim, "--out", file)...)
	if err != nil {
		t.Fatal(err)
	}
	has(t, out, scanWant)
	if n := sim.Requests() - start; n > whole+9*120 {
		t.Errorf("%d requests in nine portions, %d at once", n, whole)
	}
	before := sim.Requests()
	if out, err = run(t, scanArgs(sim, "--out", file)...); err != nil || sim.Requests() != before {
		t.Errorf("a scan that is done asks again: %v", err)
	}
	has(t, out, scanWant)
	if _, err = run(t, scanArgs(sim, "--out", file, "--block", "20")...); !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "another scan") {
		t.Errorf("another scan's file: %v", err)
	}
	other := filepath.Join(t.TempDir(), "b")
	if err := os.WriteFile(other, []byte("precious\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = run(t, scanArgs(sim, "--out", other)...); !errors.Is(err, errFailed) {
		t.Errorf("a foreign file: %v", err)
	}
	if b, _ := os.ReadFile(other); string(b) != "precious\n" {
		t.Errorf("a foreign file was changed: %q", b)
	}
}

// TestScanSilent: a device that is silent where others refuse is scanned, too, and a unit whose tables are silent costs a bounded time.
func TestScanSilent(t *testing.T) {
	t.Parallel() // it mostly waits
	sim := startSim(t)
	sim.Unit(1)
	sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.Touching(1, modbussim.Holding, 61, 65535)})
	sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.Touching(1, modbussim.Input, 0, 65535)})
	out, err := run(t, "scan", sim.URL(), "--units", "1", "--tables", "holding,input", "--block", "50", "--timeout", "200ms", "--pause", "0")
	if err != nil {
		t.Fatal(err)
	}
	has(t, out, "unit 1\n  holding: 0-60; not looked at: ", ", 225-9999\n  input: nothing: ", "no answer within 200ms; not looked at: ", ", 125-9999\n")
	if n := sim.Requests(); n > 100 {
		t.Errorf("%d requests", n)
	}
}

// TestScanOneSilentRegister: what lies behind a register that is met by silence is found.
func TestScanOneSilentRegister(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, at := range []uint16{0, 50, 99} {
		sim := startSim(t)
		sim.Unit(1)
		sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.Touching(1, modbussim.Input, at, at)})
		out, err := run(t, "scan", sim.URL(), "--units", "1", "--tables", "input", "--to", "99", "--fine", "1", "--timeout", "200ms", "--pause", "0")
		if err != nil {
			t.Fatal(err)
		}
		has(t, out, map[uint16]string{0: "input: 1-99\n", 50: "input: 0-49, 51-99\n", 99: "input: 0-98\n"}[at])
	}
}

func TestScanUsage(t *testing.T) {
	for _, more := range [][]string{{"--units", "1-300"}, {"--units", "5-1"}, {"--tables", "holding,x"}, {"--from", "500"}, {"--block", "126"}, {"--pause", "1h"}} {
		if _, err := run(t, append([]string{"scan", "tcp://h"}, append([]string{"--to", "400"}, more...)...)...); err == nil || errors.Is(err, errFailed) {
			t.Errorf("%q: %v, want wrong usage", more, err)
		}
	}
}

func FuzzScanFile(f *testing.F) {
	f.Add([]byte(`{"unit":3,"table":"holding","first":0,"read":[[5,72]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &scanner{done: map[piece]found{}}
		head := `{"scan":"u","from":0,"to":9,"block":5,"fine":1}` + "\n"
		_, _ = s.load(strings.NewReader(head+string(b)+"\n"), logHead{Scan: "u", To: 9, Block: 5, Fine: 1})
		for p, f := range s.done {
			for _, r := range f.Read {
				if p.table > 4 || r[0] > r[1] || r[1] > 65535 {
					t.Errorf("%+v %+v", p, f)
				}
			}
		}
	})
}
