package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"millrace/gateway/web"
)

const callsConfig = `  - name: cnc-1
    driver: opcua
    url: %s
    security_policy: none
    groups:
      - name: all
        interval: 100ms
        tags:
          - {name: override, address: "ns=2;s=override"}
writes:
  - {device: cnc-1, method: move, object: i=85, node: Move, arguments: [{min: -10, max: 100}], rate: 1000/s}
  - {device: cnc-1, method: Home, object: i=85, rate: 1000/s}
  - {device: cnc-1, method: free, object: i=85, node: "nsu=urn:millrace:machine;s=Move", rate: 1000/s}
  - {device: cnc-1, method: jump, object: i=85, rate: 1000/s}
`

// TestCallCommand: a running gateway calls methods that writes: names, within their ranges, and nothing else.
func TestCallCommand(t *testing.T) {
	s := toolServer(t)
	dir := filepath.Join(t.TempDir(), "data")
	file, stop := running(t, dir)
	defer stop()
	writeFile(t, file, readFile(t, file)+fmt.Sprintf(callsConfig, s.Endpoint()))
	until(t, "is in force", "reload", "--config", file)
	until(t, "cnc-1/Home called, confirmed", "call", "cnc-1/Home", "--config", file)
	mustSay(t, []string{"cnc-1/move called, confirmed by the device after ", "\ntook = 42 (UInt32)\n"}, "call", "cnc-1/move", "21", "-5", "--config", file)
	for _, no := range []struct {
		name string
		args []string
		want string
	}{
		{"cnc-1/move", []string{"101", "x"}, `call cnc-1/move: argument "to": value cannot be written: use -10 to 100; nothing was called`},
		{"cnc-1/move", []string{"-1", "x"}, "call Move: BadOutOfRange: "},
		{"cnc-1/move", []string{"1"}, `the method takes "to" float64, "label" string; 1 given`},
		{"cnc-1/free", []string{"1", "x"}, "a number needs min and max"},
		{"cnc-1/jump", nil, `the object i=85 has no method "jump"; it has "`},
		{"cnc-1/override", nil, "not allowed; list the method under writes:"},
		{"meter-1/Home", nil, "not allowed; list the method under writes:"},
		{"metre-1/Home", nil, `no device "metre-1"; did you mean "meter-1"?`},
		{"cnc-1/", nil, "name the method as DEVICE/METHOD"},
	} {
		if _, err := call(t.Context(), dir, no.name, no.args); err == nil || !strings.Contains(err.Error(), no.want) {
			t.Errorf("call %s %q: %v, want %q", no.name, no.args, err, no.want)
		}
	}
	if _, err := write(t.Context(), dir, "cnc-1/move", "1"); err == nil || !strings.Contains(err.Error(), `no tag "move"`) {
		t.Error(err)
	}
	writeFile(t, file, strings.Replace(readFile(t, file), "max: 100}]", "max: 20}]", 1))
	until(t, "is in force", "reload", "--config", file)
	if _, err := call(t.Context(), dir, "cnc-1/move", []string{"21", "x"}); err == nil || !strings.Contains(err.Error(), "use -10 to 20") {
		t.Errorf("after a reload with another range: %v", err)
	}
	code := exitOK
	if said := stderrOf(t, func() { code, _ = millrace("call", "cnc-1", "move", "5", "--config", file) }); code != exitUsage || !strings.Contains(said, "name the method as DEVICE/METHOD") {
		t.Errorf("without a slash: exit %d\n%s", code, said)
	}
	if code, _ := millrace("call", "cnc-1/jump", "--config", file); code != exitFailed {
		t.Errorf("a call that is refused: exit %d", code)
	}
}

// TestCalledWords: no text of a device reaches the terminal as a command.
func TestCalledWords(t *testing.T) {
	var out bytes.Buffer
	printCalled(&out, &web.Called{Device: "cnc-1", Method: "move", Results: []web.Result{{Name: "a\x1b[2J", Type: "String", Value: "b\x1b[2J\n"}, {Type: "Int32", Reason: "c\x1b"}}})
	if got := out.String(); strings.Contains(got, "\x1b") || strings.Count(got, "\n") != 3 || !strings.Contains(got, "result 2 =  (Int32)  c") {
		t.Errorf("%q", got)
	}
}
