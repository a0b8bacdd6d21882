package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// simulatingUA runs `millrace opcua simulate ARGS` until the test ends, and returns its URL and the thumbprint of its certificate.
func simulatingUA(t *testing.T, args ...string) (url, thumbprint string) {
	t.Helper()
	cmd := newOPCUASimulate()
	r, w := io.Pipe()
	cmd.SetOut(w)
	cmd.SetArgs(append([]string{"--listen", "127.0.0.1:0"}, args...))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx); w.Close() }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for in := bufio.NewScanner(r); in.Scan(); {
		if url == "" {
			url, _, _ = strings.Cut(in.Text(), "  ")
		}
		if m := regexp.MustCompile(`^certificate ([0-9a-f]{40}) `).FindStringSubmatch(in.Text()); m != nil {
			go func() { _, _ = io.Copy(io.Discard, r) }()
			return url, m[1]
		}
	}
	t.Fatal("it does not say what it serves")
	return "", ""
}

// TestOPCUASimulate serves a machine over a secured endpoint, to one user, with a certificate that stays: read, browsed, written, called.
func TestOPCUASimulate(t *testing.T) {
	dir := t.TempDir()
	identity := filepath.Join(dir, "machine.pem")
	args := []string{"--identity", identity, "--secured", "--username", "operator", "--password", "päss"}
	url, thumbprint := simulatingUA(t, args...)
	if info, err := os.Stat(identity); err != nil || runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the key's file: %v, %v", info, err)
	}
	with := func(args ...string) []string {
		return append(args, "--pki", filepath.Join(dir, "pki"), "--option", "username=operator,password=päss")
	}
	contains(t, both(t, exitFailed, with("read", url, "ns=2;s=Spindle.Speed")...), "is not trusted; ", thumbprint)
	both(t, 0, "trust", "add", thumbprint, "--pki", filepath.Join(dir, "pki"))
	contains(t, both(t, 0, with("read", url, "/Objects/2:Machine/2:Spindle/2:Speed", "ns=2;s=Axis.Position")...), "Double  ", "Double[]  ")
	contains(t, both(t, exitFailed, "read", url, "i=2258", "--pki", filepath.Join(dir, "pki")), "username")
	contains(t, both(t, 0, with("browse", url, "-o", "csv")...), "Machine.Spindle.Speed,nsu=urn:millrace:machine;s=Spindle.Speed,variable,Double,rev/min,0 to 9000,read+history,speed of the spindle\n",
		"Machine,nsu=urn:millrace:machine;s=Machine,object,,,,events,\n", "Machine.Feed.Override,nsu=urn:millrace:machine;s=Feed.Override,variable,Byte,%,0 to 120,read+write,of the programmed feed\n", "Move,nsu=urn:millrace:machine;s=Move,method,,,,call,\n")
	contains(t, both(t, 0, with("write", url, "ns=2;s=Feed.Override", "80", "--yes")...), "80 written and confirmed")
	contains(t, both(t, 0, with("call", url, "i=85", "Move", "2.5", "--yes")...), "distance = 2.5 (Double)")
	if _, again := simulatingUA(t, args...); again != thumbprint {
		t.Errorf("another certificate at the second start: %s, was %s", again, thumbprint)
	}
	writeFile(t, identity, "nothing")
	contains(t, both(t, exitFailed, "simulate", "--listen", "127.0.0.1:0", "--identity", identity), "does not hold a certificate and an RSA key", "remove it")
	contains(t, both(t, exitFailed, "simulate", "--listen", strings.TrimPrefix(url, "opc.tcp://")), "--listen takes another host:port")
	contains(t, both(t, 0, "simulate", "--listen", "127.0.0.1:0", "--for", "1ns"), "try: millrace opcua browse opc.tcp://127.0.0.1:", "0 logins, 0 reads, 0 writes")
}

// oneIdentity is a key and certificate for all: to make one takes long.
var oneIdentity = sync.OnceValues(func() (string, error) {
	who, err := opcuasim.NewIdentity(2048, uaTemplate(""))
	if err != nil {
		return "", err
	}
	text, err := uaPEM(who)
	return string(text), err
})

// faulty is a simulated machine, and what a fault does to it.
func faulty(t *testing.T, fault string) (*simulatedUA, []uaChange) {
	t.Helper()
	f := simulateFlags{listen: "127.0.0.1:0", identity: filepath.Join(t.TempDir(), "machine.pem"), faults: []string{fault}, counters: 2, rate: 10}
	if made, err := oneIdentity(); err != nil {
		t.Fatal(err)
	} else {
		writeFile(t, f.identity, made)
	}
	s, err := f.machine()
	if err != nil {
		t.Fatal(err)
	}
	changes, err := planUAFaults(s, []string{fault})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.start(onPath(fault)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	return s, changes
}

// faultyOn is what a fault does to a machine that is served.
func faultyOn(t *testing.T, s *simulatedUA, fault string) (*simulatedUA, []uaChange) {
	t.Helper()
	changes, err := planUAFaults(s, []string{fault})
	if err != nil {
		t.Fatal(err)
	}
	return s, changes
}

// TestOPCUAFaults: each fault is one that a client sees, and what has an end is over then.
func TestOPCUAFaults(t *testing.T) {
	const load = "ns=2;s=Spindle.Load"
	for _, c := range []struct{ fault, want string }{
		{"silent@1s-2s", "no answer within 300ms"},
		{"off@1s-2s", "refused"},
		{"bad:Spindle.Load@1s-2s", "BadNoCommunication"},
		{"namespaces@1s-2s", "BadNodeIdUnknown"},
		{"remove:Spindle.Load", "BadNodeIdUnknown"},
	} {
		s, changes := faulty(t, c.fault)
		read := func(want int, timeout string) string {
			return both(t, want, "read", s.url(), load, "--timeout", timeout, "--option", "security_policy=none")
		}
		if err := changes[0].do(); err != nil {
			t.Error(err)
		}
		contains(t, read(exitFailed, "300ms"), c.want)
		if len(changes) == 1 {
			if out := both(t, 0, "browse", s.url(), "--option", "security_policy=none"); strings.Contains(out, "Spindle.Load") {
				t.Errorf("it is still listed:\n%s", out)
			}
			continue
		}
		if err := changes[1].do(); err != nil {
			t.Error(err)
		}
		contains(t, read(0, "10s"), "Float  Good")
	}
	s, changes := faulty(t, "wrong-nonce@1s-2s")
	pki := []string{"--pki", filepath.Join(t.TempDir(), "pki")}
	read := append([]string{"read", s.url(), load}, pki...)
	m := regexp.MustCompile(`thumbprint ([0-9a-f]{40})`).FindStringSubmatch(both(t, exitFailed, read...))
	both(t, 0, append([]string{"trust", "add", m[1]}, pki...)...)
	plain := filepath.Join(t.TempDir(), "plain.pem")
	if err := os.WriteFile(plain, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, words := range map[string]string{m[1][:4]: "is trusted already", "none.pem": "there is no file none.pem", plain: "is no certificate in DER or PEM", "00ff00ff": "holds 0 certificates"} {
		contains(t, both(t, exitFailed, append([]string{"trust", "add", what}, pki...)...), words)
	}
	if err := changes[0].do(); err != nil {
		t.Error(err)
	}
	contains(t, both(t, exitFailed, read...), "BadApplicationSignatureInvalid", "it checks our signature against another nonce than it has told")
	if err := changes[1].do(); err != nil {
		t.Error(err)
	}
	contains(t, both(t, 0, read...), "Float  Good")
}

// struck begins a fault with the first value, and ends after so many.
type struck struct {
	begin  func() error
	end    func()
	lines  int
	enough int // 0 = never
}

func (f *struck) Write(b []byte) (int, error) {
	if f.lines == 0 {
		if err := f.begin(); err != nil {
			return 0, err
		}
	}
	if f.lines += bytes.Count(b, []byte("\n")); f.enough > 0 && f.lines >= f.enough {
		f.end()
	}
	return len(b), nil
}

// TestOPCUAFaultsOfSubscriptions: each fault of subscriptions is one that who watches sees.
func TestOPCUAFaultsOfSubscriptions(t *testing.T) {
	options := &serverFlags{pki: &pkiFlags{path: "pki"}, options: map[string]string{"security_policy": "none"}, timeout: 10 * time.Second}
	for _, c := range []struct {
		fault, want string
		enough      int
	}{
		{"drop-subscriptions", "the server has ended the subscription: BadTimeout", 0},
		{"drop-subscriptions:refused", "the server has ended the subscription: BadNoSubscription", 0},
		{"drop-subscriptions:quietly", "context deadline exceeded", 5},
		{"drop-sessions", "BadSessionIdInvalid|published nothing", 0}, // as a request is under way or not
		{"restart", "connection", 0},
		{"unpublished@1s-2s", "context deadline exceeded", 5},
		{"garbage@1s-2s", "malformed", 0},
		{"lose:2", "values are missing before the next ones", 20},
		{"skip:2", "context canceled", 20}, // they were asked for again
		{"mute:Machine.Beat@1s-2s", "context deadline exceeded", 5},
		{"cut", "connection", 0},
		{"unreachable@1s-2s", "context deadline exceeded", 5},
		{"held@1s-2s", "context deadline exceeded", 5},
		{"expired-token", "another secure channel", 0},
		{"chunk:message", `the server answered with "\x18SGF"`, 0},
		{"chunk:type", `the server answered with "MSG\x13"`, 0},
		{"chunk:size", "a chunk of 1426063", 0},
		{"chunk:channel", "another secure channel", 0},
		{"chunk:sequence", "out of sequence", 0},
		{"chunk:request", "answered another request", 0},
		{"chunk:body", "the server answered with message", 0},
	} {
		t.Run(c.fault, func(t *testing.T) {
			s, changes := faulty(t, c.fault)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if c.enough == 5 { // silence
				ctx, cancel = context.WithTimeout(t.Context(), 3*time.Second)
			}
			defer cancel()
			w := nodeWatch{pushWatch: pushWatch{format: "json"}, interval: 100 * time.Millisecond}
			var err error
			told := stderrOf(t, func() {
				err = w.watch(ctx, &struck{begin: changes[0].do, end: cancel, enough: c.enough}, options, s.url(), []string{"ns=2;s=Machine.Beat"})
			})
			if got := fmt.Sprint(told, err); !slices.ContainsFunc(strings.Split(c.want, "|"), func(want string) bool { return strings.Contains(got, want) }) || c.fault == "skip:2" && strings.Contains(got, "missing") {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

// TestOPCUASimulatedTypes: structures and enumerations are described, counters count at their rate, variables come, and one spoils a request with others.
func TestOPCUASimulatedTypes(t *testing.T) {
	s, changes := faulty(t, "rate:1000@1s-2s")
	none := func(args ...string) []string { return append(args, "--option", "security_policy=none") }
	contains(t, both(t, 0, none("read", s.url(), "ns=2;s=Program.Step", "ns=2;s=Machine.Mode", "ns=2;s=Counters.N1")...), `{\"number\":`, `\"tool\":\"T0`, `\"target\":[`, "structure  Good", "Int32      Good", "UInt32     Good")
	contains(t, both(t, 0, none("browse", s.url(), "-o", "csv")...), "Machine.Program.Step,nsu=urn:millrace:machine;s=Program.Step,variable,StepType,", "Machine.Mode,nsu=urn:millrace:machine;s=Machine.Mode,variable,ModeType,", "Machine.Counters.N1,")
	before := s.counters.Count()
	for i, want := range []bool{true, false} { // 1000 a second, 10 again
		if err := changes[i].do(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		now := s.counters.Count()
		if counted := now - before; want && counted < 500 || !want && counted > 1_000_000 {
			t.Errorf("counted %d", counted)
		}
		before = now
	}
	_, changes = faultyOn(t, s, "grow:Sensor2")
	if err := changes[0].do(); err != nil {
		t.Fatal(err)
	}
	contains(t, both(t, 0, none("browse", s.url(), "--filter", "grown")...), "Machine.Grown.Sensor2 = ")
	_, changes = faultyOn(t, s, "poison:Spindle.Load@1s-2s")
	if err := changes[0].do(); err != nil {
		t.Fatal(err)
	}
	if got := s.onRead([]string{"s=a", "s=Spindle.Load"}); got == 0 || s.onRead([]string{"s=Spindle.Load"}) != 0 || s.onRead([]string{"s=a", "s=b"}) != 0 {
		t.Errorf("%#x", got)
	}
	contains(t, both(t, 0, none("read", s.url(), "ns=2;s=Spindle.Load", "ns=2;s=Spindle.Speed")...), "Float   Good", "Double  Good")
	if err := changes[1].do(); err != nil || s.onRead([]string{"s=a", "s=Spindle.Load"}) != 0 {
		t.Errorf("it does not end: %v", err)
	}
}

// TestOPCUAFaultMistakes: what is no fault, or none of this machine, is said before it is served.
func TestOPCUAFaultMistakes(t *testing.T) {
	for fault, want := range map[string]string{
		"explode":               "there is none of that name; use one of\n  silent ",
		"silent:now":            "nothing stands after silent",
		"silent@soon":           `"soon" is no time: write it like @30s or @30s-1m10s`,
		"silent@2s-1s":          `"2s-1s" ends before it begins`,
		"restart@1s-2s":         "it has no end; write @1s",
		"skip:all":              `"all" is no number from 1 to 10000; write skip:3`,
		"mute:Spindle":          `the machine has no variable "Spindle"; it has Alarm.Active, `,
		"poison:Spindle":        `the machine has no variable "Spindle"`,
		"grow:a b":              `"a b" is no name`,
		"rate:-1":               `"-1" is no number from 0 to 1000; write rate:50`,
		"chunk:x":               `"x" is not known; use one of body, channel, message, `,
		"held:x":                "nothing stands after held",
		"cut@1s-2s":             "it has no end; write @1s",
		"drop-subscriptions:no": `"no" is not known; use told, refused or quietly`,
	} {
		contains(t, both(t, exitUsage, "simulate", "--listen", "127.0.0.1:0", "--for", "1ns", "--fault", fault), fmt.Sprintf("fault %q: ", fault), want)
	}
	f := regexp.MustCompile(`(?m)^  ([a-z-]+)`)
	s, _ := faulty(t, "silent")
	for _, name := range f.FindAllStringSubmatch(uaFaultHelp, -1) {
		what := map[string]string{"skip": "3", "lose": "3", "mute": "Spindle.Load", "bad": "Spindle.Load", "remove": "Spindle.Load",
			"poison": "Spindle.Load", "grow": "x", "rate": "1", "chunk": "size"}[name[1]]
		if _, _, err := uaFaultOf(s, name[1], what); err != nil {
			t.Errorf("the help has %s: %v", name[1], err)
		}
	}
}
