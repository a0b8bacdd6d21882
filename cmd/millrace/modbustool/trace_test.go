package modbustool

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"millrace/drivers/drivertest"
	"millrace/drivers/modbus/modbussim"
	"millrace/gateway/web"
)

// TestTrace watches the line of a running gateway, which speaks RTU over TCP and sees refusals and silence, and has tshark read
// the file: everything is Modbus, nothing is malformed.
func TestTrace(t *testing.T) {
	sim, err := modbussim.Start(modbussim.Options{Transport: "rtuovertcp"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	sim.Unit(1).SetRegisters(modbussim.Holding, 100, 0x42f6)
	file := runGateway(t, sim.URL())
	pcap := filepath.Join(t.TempDir(), "a.pcap")
	sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 6, Skip: 3, Times: 1})
	sim.Inject(modbussim.Fault{Kind: modbussim.Garbage, N: 20, Seed: 1, Skip: 5, Times: 1})
	out, err := run(t, "trace", "meter", "--config", file, "--count", "12", "--pcap", pcap, "--for", "30s")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out, "read holding:100, 1"); n != 12 {
		t.Errorf("%d exchanges, want 12:\n%s", n, out)
	}
	has(t, out, "unit 1: read holding:100, 1 → 42 F6\n", "exception 6: device busy", "the answer is not valid Modbus; instead ")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // the gateway is not watched for ever
		if _, err = run(t, "trace", "meter", "--config", file, "--count", "1"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if _, err = run(t, "trace", "nobody", "--config", file); !errors.Is(err, errFailed) || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("no such device: %v", err)
	}
	if _, err := exec.LookPath("tshark"); err != nil {
		drivertest.Lacks(t, "tshark is not here")
	}
	fields := tshark(t, pcap, "-Y", "modbus", "-T", "fields", "-e", "modbus.func_code", "-e", "modbus.exception_code", "-e", "modbus.regval_uint16")
	if n := strings.Count(fields, "\n"); n != 23 { // 12 requests, 11 answers
		t.Errorf("%d frames of Modbus, want 23:\n%s", n, fields)
	}
	has(t, fields, "3\t6\t", "3\t\t17142")
	if expert := tshark(t, pcap, "-q", "-z", "expert"); strings.Contains(expert, "Errors") || strings.Contains(expert, "Warns") || strings.Contains(strings.ToLower(expert), "malformed") {
		t.Errorf("tshark is not content:\n%s", expert)
	}
	if sums := tshark(t, pcap, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", "tcp.checksum.status != 1 || ip.checksum.status != 1"); strings.TrimSpace(sums) != "" {
		t.Errorf("wrong checksums:\n%s", sums)
	}
}

func tshark(t *testing.T, file string, args ...string) string {
	t.Helper()
	cmd := exec.Command("tshark", append([]string{"-r", file}, args...)...)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark %q: %v %s", args, err, &errors)
	}
	return string(out)
}

// TestSaid: each kind of exchange in one line, also those that make no sense.
func TestSaid(t *testing.T) {
	for _, c := range []struct {
		e    web.Exchange
		want string
	}{
		{web.Exchange{Took: 1500, Request: []byte{7, 3, 0, 100, 0, 2}, Answer: []byte{7, 3, 4, 1, 2, 3, 4}}, "1.5 ms  unit 7: read holding:100, 2 → 01 02 03 04"},
		{web.Exchange{Request: []byte{7, 1, 0, 9, 0, 2}, Answer: []byte{7, 0x81, 2}}, "read coil:9, 2 → exception 2: illegal data address"},
		{web.Exchange{Request: []byte{7, 4, 0, 9, 0, 2}, Reason: "no answer within 1s", Raw: []byte{1, 2}}, "no answer within 1s; instead 01 02"},
		{web.Exchange{Request: []byte{7, 16, 0, 9, 0, 1, 2, 0xab, 0xcd}, Answer: []byte{7, 16, 0, 9, 0}}, "write holding:9, 1 = AB CD → done"},
		{web.Exchange{Request: []byte{7, 5, 0, 9, 0xff, 0}, Answer: []byte{7, 5, 0, 9, 0}}, "write coil:9 = 1 → done"},
		{web.Exchange{Request: []byte{7, 6, 0, 9, 0, 5}, Answer: []byte{7, 6, 0, 9, 0}}, "write holding:9 = 00 05"},
		{web.Exchange{Request: []byte{7, 22, 0, 9, 0, 5, 0, 1}, Answer: []byte{7, 22, 0, 9, 0}}, "write bits of holding:9"},
		{web.Exchange{Request: []byte{7, 23, 0, 8, 0, 2, 0, 9, 0, 1, 2, 0xab, 0xcd}, Answer: []byte{7, 23, 4, 0, 1, 0xab, 0xcd}}, "write holding:9, 1 = AB CD, and read holding:8, 2 → 00 01 AB CD"},
		{web.Exchange{Request: []byte{7, 43, 14, 1, 0}, Answer: []byte{7, 43, 14}}, "function 43, 0E 01 00"},
		{web.Exchange{Lost: 5, Request: []byte{7, 3, 0, 100, 0, 2}, Answer: append([]byte{7, 3, 200}, make([]byte, 200)...)}, "… 5 exchanges are not shown: they came too fast\n"},
	} {
		if got := said(&c.e); !strings.Contains(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if got := said(&web.Exchange{Lost: 5, Request: []byte{7, 3, 0, 100, 0, 2}, Answer: append([]byte{7, 3, 200}, make([]byte, 200)...)}); len(got) > 300 {
		t.Errorf("a long answer takes %d bytes", len(got))
	}
}

func FuzzSaid(f *testing.F) {
	f.Add([]byte{7, 3, 0, 100, 0, 2}, []byte{7, 3, 4, 1, 2, 3, 4}, []byte{})
	f.Add([]byte{7, 16, 0, 9, 0, 1, 2}, []byte{}, []byte{1, 2})
	f.Add([]byte{7, 23, 0, 8, 0, 2, 0, 9, 0, 1, 2, 1}, []byte{7, 23, 2, 1, 2}, []byte{})
	line := regexp.MustCompile(`^[^\n]*\n$`)
	f.Fuzz(func(t *testing.T, request, answer, raw []byte) {
		if got := said(&web.Exchange{Request: request, Answer: answer, Raw: raw}); got != "" && !line.MatchString(got) {
			t.Errorf("%q is no line", got)
		}
	})
}
