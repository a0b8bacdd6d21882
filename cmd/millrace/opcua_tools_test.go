package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// toolServer is a server with something to read, write and call.
func toolServer(t *testing.T) *opcuasim.Server { return toolServerWith(t, opcuasim.Options{}) }

func toolServerWith(t *testing.T, o opcuasim.Options) *opcuasim.Server {
	t.Helper()
	o.Browsable = true
	s, err := opcuasim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.AddVariable("fixed", func() any { return "Größe \x1b[2J" })
	s.AddWritable("override", opcuasim.Writable{Value: uint8(100)})
	s.AddWritable("offsets", opcuasim.Writable{Value: []float32{1.5, -2}})
	s.AddWritable("large", opcuasim.Writable{Value: int64(-9007199254740993)})
	s.AddWritable("locked", opcuasim.Writable{Value: "x", Refuse: badUserAccessDenied})
	s.AddMethod("Move", opcuasim.Method{
		Inputs:  []opcuasim.Argument{{Name: "to", Type: 11, Rank: -1}, {Name: "label", Type: 12, Rank: -1}}, // Double, String
		Outputs: []opcuasim.Argument{{Name: "took", Type: 7, Rank: -1}},                                     // UInt32
		Call: func(args []any) ([]any, uint32) {
			if args[0].(float64) < 0 {
				return nil, badOutOfRange
			}
			return []any{uint32(args[0].(float64) * 2)}, 0
		},
	})
	s.AddMethod("Home", opcuasim.Method{Call: func([]any) ([]any, uint32) { return nil, 0 }})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

const (
	badUserAccessDenied = 0x801F0000
	badOutOfRange       = 0x803C0000
)

// both runs a command of opcua and returns what it prints, errors too.
func both(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	var code int
	said := stderrOf(t, func() { code = execute(append([]string{"opcua"}, args...), &out) })
	if code != want {
		t.Errorf("%v: exit code %d, want %d\n%s%s", args, code, want, out.String(), said)
	}
	return out.String() + said
}

// stderrOf returns what f prints on standard error.
func stderrOf(t *testing.T, f func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stderr
	os.Stderr = w
	f()
	os.Stderr = old
	w.Close()
	said, _ := io.ReadAll(r)
	return string(said)
}

func contains(t *testing.T, out string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestOPCUARead shows what a server says of nodes, also of those that it has not.
func TestOPCUARead(t *testing.T) {
	s := toolServer(t)
	out := both(t, 0, "read", s.Endpoint(), "ns=2;s=fixed", "nsu=urn:millrace:machine;s=offsets", "ns=2;s=none", "nsu=urn:nobody;s=x", "--option", "security_policy=none")
	contains(t, out, `ns=2;s=fixed`, `"Größe \x1b[2J"`, "String", "Good", "[1.5,-2]", "Float[]",
		"BadNodeIdUnknown", "refers to a node that does not exist", `the server has no namespace "urn:nobody"`)
	if !regexp.MustCompile(`Good +20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z  20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\n`).MatchString(out) {
		t.Errorf("no times in\n%s", out)
	}
	if strings.Contains(out, "\x1b") {
		t.Error("a value steers the terminal")
	}
	lines := strings.Split(strings.TrimSpace(both(t, 0, "read", s.Endpoint(), "ns=2;s=large", "ns=2;s=offsets", "--option", "security_policy=none", "-o", "json")), "\n")
	var large, offsets readNode
	if len(lines) != 2 || json.Unmarshal([]byte(lines[0]), &large) != nil || json.Unmarshal([]byte(lines[1]), &offsets) != nil ||
		!strings.Contains(lines[0], `"value":-9007199254740993,"type":"Int64","status":"Good","source_time":"2`) || !strings.Contains(lines[1], `"value":[1.5,-2],"type":"Float[]"`) {
		t.Errorf("%s", lines)
	}
	contains(t, both(t, exitFailed, "read", s.Endpoint(), "ns=2;s=none", "--option", "security_policy=none"), "BadNodeIdUnknown", "no node has a value")
	contains(t, both(t, exitFailed, "read", s.Endpoint(), "ns=2;s=fixed"), `write "security_policy: none" to allow that; here it is --option security_policy=none`)
	contains(t, both(t, exitFailed, "read", s.Endpoint(), "s2", "--option", "security_policy=none"), "no identifier of the form")
	contains(t, both(t, exitFailed, "read", s.Endpoint(), "i=1", "--option", "securitypolicy=none"), `option "securitypolicy" is not known; use one of security_policy, `)
	both(t, exitUsage, "read", s.Endpoint(), "i=1", "-o", "xml")
	if n := s.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// TestOPCUAReadMany: a server that takes few nodes a request, and one node whose value cannot be encoded.
func TestOPCUAReadMany(t *testing.T) {
	s, err := opcuasim.New(opcuasim.Options{MaxNodesPerRead: 3, HideLimit: true})
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"read", s.Endpoint(), "--option", "security_policy=none"}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		s.AddVariable(name, func() any { return name })
		args = append(args, "ns=2;s="+name)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	args[1] = s.Endpoint()
	contains(t, both(t, 0, args...), `"a"`, `"d"`, `"h"`)
}

// untilSeen ends a context once it has seen all its words.
type untilSeen struct {
	seen  bytes.Buffer
	words []string
	end   func()
}

func (u *untilSeen) Write(b []byte) (int, error) {
	n, err := u.seen.Write(b)
	for _, word := range u.words {
		if !strings.Contains(u.seen.String(), word) {
			return n, err
		}
	}
	u.end()
	return n, err
}

// TestOPCUAWatch shows what is pushed, until it is told to end, the time is over or the connection is lost.
func TestOPCUAWatch(t *testing.T) {
	s := toolServer(t)
	var n atomic.Uint32
	s.AddVariable("beat", func() any { return n.Add(1) })
	for format, words := range map[string][]string{
		"json":  {`{"node":"ns=2;s=beat","value":3,"quality":"good","source_time":"2`, `"value":7`, `{"node":"ns=2;s=none","value":null,"quality":"bad","reason":"BadNodeIdUnknown`},
		"table": {"SOURCE TIME", "ns=2;s=beat  ", " BadNodeIdUnknown"},
	} {
		n.Store(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out := untilSeen{words: words, end: cancel}
		w := nodeWatch{pushWatch: pushWatch{format: format}, interval: 50 * time.Millisecond}
		err := w.watch(ctx, &out, &serverFlags{pki: &pkiFlags{path: "pki"}, options: map[string]string{"security_policy": "none"}, timeout: 10 * time.Second}, s.Endpoint(), []string{"ns=2;s=beat", "ns=2;s=none"})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v\n%s", err, out.seen.String())
		}
		cancel()
	}
	watch := []string{"watch", s.Endpoint(), "ns=2;s=override", "--option", "security_policy=none"}
	contains(t, both(t, exitFailed, append(watch, "--for", "1ns")...), "no value came within 1ns; watch longer")
	both(t, 0, append(watch, "--interval", "50ms", "--for", "5s")...)
	contains(t, both(t, exitFailed, append(watch, "--interval", "1ms")...), "use 10ms at least")
	time.AfterFunc(time.Second, s.Close)
	contains(t, both(t, exitFailed, watch...), "millrace: ")
}

// TestOPCUAWatchHeads: the heads stand above their columns, also where the server's first sign of life has no value, or a bad one without a time.
func TestOPCUAWatchHeads(t *testing.T) {
	var out bytes.Buffer
	p := newReadingPrinter(&out, "table")
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	p.value("ns=2;s=Missing", &telemetry.Reading{Quality: telemetry.Bad, Reason: "BadNodeIdUnknown"})
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	p.value("ns=2;s=Counter", &telemetry.Reading{Value: telemetry.Float64(67638), Time: 1_700_000_000_250_000})
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	want := `SOURCE TIME                  NODE            VALUE  QUALITY  REASON
                             ns=2;s=Missing         bad      BadNodeIdUnknown
2023-11-14T22:13:20.250000Z  ns=2;s=Counter  67638  good
`
	if out.String() != want {
		t.Errorf("shown:\n%swant:\n%s", &out, want)
	}
}

// TestOPCUAFind lists what a server knows: itself.
func TestOPCUAFind(t *testing.T) {
	s := toolServer(t)
	contains(t, both(t, 0, "find", s.Endpoint()), s.Endpoint(), "millrace simulated machine  server  urn:millrace:opcuasim")
	contains(t, both(t, 0, "find", s.Endpoint(), "-o", "json"), `{"name":"millrace simulated machine","kind":"server","application_uri":"urn:millrace:opcuasim","urls":["`+s.Endpoint()+`"]}`)
	contains(t, both(t, exitFailed, "find", "http://x"), "opc.tcp://")
}

// TestOPCUAWrite: nothing is written without --yes, and what is there is shown before and after.
func TestOPCUAWrite(t *testing.T) {
	s := toolServer(t)
	write := func(want int, args ...string) string {
		t.Helper()
		return both(t, want, append([]string{"write", s.Endpoint()}, append(args, "--option", "security_policy=none")...)...)
	}
	contains(t, write(exitFailed, "ns=2;s=override", "80"), "ns=2;s=override: now 100 (Byte)", "nothing was written; add --yes to write 80")
	if s.Writes() != 0 {
		t.Error("it wrote without --yes")
	}
	contains(t, write(0, "ns=2;s=override", "80", "--yes"), "ns=2;s=override: now 100 (Byte)\n80 written and confirmed; now 80 (Byte)\n")
	contains(t, write(0, "ns=2;s=large", "-9007199254740995", "--yes"), "now -9007199254740995 (Int64)")
	contains(t, write(0, "ns=2;s=offsets", "[0.1, 7]", "--yes"), "[0.1,7] written and confirmed; now [0.1,7] (Float[])")
	contains(t, write(exitFailed, "ns=2;s=override", "256", "--yes"), "the value 256 does not fit the node's type Byte")
	contains(t, write(exitFailed, "ns=2;s=override", "12.5", "--yes"), `value "12.5" of the type uint8: use a whole number from 0 on`)
	contains(t, write(exitFailed, "ns=2;s=locked", "y", "--yes"), "BadUserAccessDenied: ", "; log in as a user who may")
	contains(t, write(exitFailed, "ns=2;s=fixed", "y", "--type", "string", "--yes"), "BadNotWritable: ")
	contains(t, write(exitFailed, "ns=2;s=none", "y", "--yes"), "BadNodeIdUnknown: ", "millrace opcua browse shows what there is")
	if s.Written("override") != uint8(80) {
		t.Errorf("the server holds %v", s.Written("override"))
	}
}

// TestOPCUACall: a method is called with --yes only, by its name or node, and its arguments are checked before.
func TestOPCUACall(t *testing.T) {
	s := toolServer(t)
	call := func(want int, args ...string) string {
		t.Helper()
		return both(t, want, append([]string{"call", s.Endpoint()}, append(args, "--option", "security_policy=none")...)...)
	}
	contains(t, call(exitFailed, "i=85", "Move", "2.5", "x"), "Move takes to Double, label String; gives took UInt32", "nothing was called; add --yes")
	contains(t, call(0, "i=85", "Move", "2.5", "x", "--yes"), "called; the server says Good\ntook = 5 (UInt32)\n")
	contains(t, call(0, "i=85", "ns=2;s=Move", "21", "-5", "--yes"), "took = 42 (UInt32)")
	contains(t, call(0, "i=85", "Home", "--yes"), "called; the server says Good\n")
	contains(t, call(exitFailed, "i=85", "Move", "2.5", "--yes"), "Move takes to Double, label String", "nothing was called; give 2 arguments, not 1")
	contains(t, call(exitFailed, "i=85", "Move", "fast", "x", "--yes"), `argument "to": value "fast" of the type float64: use a number`)
	contains(t, call(exitFailed, "i=85", "Move", "-1", "x", "--yes"), "call Move: BadOutOfRange: ")
	contains(t, call(exitFailed, "i=85", "Jump", "--yes"), `the object i=85 has no method "Jump"; it has "`)
	contains(t, call(exitFailed, "i=86", "ns=2;s=Move", "1", "x", "--yes"), "BadMethodInvalid: ")
}

// TestAsOption: what an error says to write in a config is said as an option, too.
func TestAsOption(t *testing.T) {
	for text, want := range map[string]string{
		`it offers none; write "security_policy: none" to allow that`:                                            "--option security_policy=none",
		"security_policy basic256 has been withdrawn; choose another, or add allow_insecure: true":               "--option allow_insecure=true",
		`only; write "allow_insecure: true" to allow them`:                                                       "--option allow_insecure=true",
		"is for vm, not for 127.0.0.1; use one of its names in url, or write server_name to say which to expect": "--option server_name=…",
		"only user names; write username and password":                                                           "--option username=… --option password=…",
		"it offers sign; write one of these":                                                                     "",
		"no answer within 2s":                                                                                    "",
	} {
		got := asOption(errors.New(text)).Error()
		if want != "" {
			want = "; here it is " + want
		}
		if got != text+want {
			t.Errorf("got  %s\nwant %s", got, text+want)
		}
	}
}

// TestOPCUAWithdrawn: a policy that has been withdrawn is refused before a server is asked.
func TestOPCUAWithdrawn(t *testing.T) {
	contains(t, both(t, exitFailed, "read", "opc.tcp://127.0.0.1:1", "i=2258", "--option", "security_policy=basic256"), "; here it is --option allow_insecure=true")
}
