package modbus

import (
	"bytes"
	"context"
	"encoding/hex"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// TestWireshark has tshark capture what the driver and the simulated device say to each other, every function that they know and exceptions
// among it: Wireshark, a third reader of the specification, finds nothing malformed, and the checksums of RTU right. It knows no ASCII,
// and Modbus TCP in datagrams only on port 502.
func TestWireshark(t *testing.T) {
	_, err := exec.LookPath("tshark")
	need(t, "tshark", err == nil)
	for transport, how := range map[string]struct{ filter, port, protocol string }{
		"tcp": {"tcp", "mbtcp.tcp.port", "mbtcp"}, "rtuovertcp": {"tcp", "mbrtu.tcp.port", "mbrtu"}, "rtuoverudp": {"udp", "mbrtu.udp.port", "mbrtu"},
	} {
		t.Run(transport, func(t *testing.T) {
			sim := startSim(t, modbussim.Options{Transport: transport})
			file := filepath.Join(t.TempDir(), "capture")
			// At another address of lo a test beside this one may have the same port.
			capture(t, file, how.filter+" port "+placeOf(sim)+" and src host 127.0.0.1 and dst host 127.0.0.1")
			sayEverything(t, sim)
			read := func(args ...string) string {
				more := []string{"-r", file, "-d", how.filter + ".port==" + placeOf(sim) + "," + how.protocol, "-o", how.port + ":" + placeOf(sim), "-o", "mbrtu.crc_verification:TRUE"}
				out, err := exec.Command("tshark", append(more, args...)...).Output()
				if err != nil {
					t.Fatalf("tshark %q: %v", args, err)
				}
				return string(out)
			}
			frames := 2 * int(sim.Requests())
			if how.protocol == "mbrtu" {
				frames-- // the request of function 17 has four bytes, and Wireshark takes less than five for no frame
			}
			var fields string
			for range 5 { // until the capture has written them all
				if fields = read("-Y", "modbus", "-T", "fields", "-e", "modbus.func_code"); strings.Count(fields, "\n") == frames {
					break
				}
				time.Sleep(200 * time.Millisecond)
			}
			if n := strings.Count(fields, "\n"); n != frames {
				t.Errorf("%d frames, want %d", n, frames)
			}
			for _, f := range []string{"1", "2", "3", "4", "5", "6", "15", "16", "17", "22", "23", "43"} {
				if !strings.Contains("\n"+fields, "\n"+f+"\n") {
					t.Errorf("function %s was not seen: %q", f, fields)
				}
			}
			if exceptions := read("-Y", "modbus.exception_code", "-T", "fields", "-e", "modbus.exception_code"); !strings.Contains(exceptions, "2\n") {
				t.Errorf("exceptions %q", exceptions)
			}
			if expert := read("-q", "-z", "expert"); strings.Contains(expert, "Errors") || strings.Contains(expert, "Warns") || strings.Contains(strings.ToLower(expert), "malformed") {
				t.Errorf("tshark is not content:\n%s", expert)
			}
			if how.protocol == "mbrtu" {
				if all, wrong := read("-Y", "mbrtu.crc16"), read("-Y", "mbrtu.crc16.status != 1"); strings.Count(all, "\n") != frames || wrong != "" {
					t.Errorf("%d checksums of %d, wrong:\n%s", strings.Count(all, "\n"), frames, wrong)
				}
			}
			t.Logf("%d frames", frames)
		})
	}
}

// capture runs tshark until the test ends.
func capture(t *testing.T, file, filter string) {
	t.Helper()
	run := exec.Command("tshark", "-i", "lo", "-f", filter, "-w", file)
	log := &bytes.Buffer{}
	started := make(chan struct{})
	run.Stderr = writes(func(b []byte) (int, error) {
		if log.Write(b); started != nil && strings.Contains(log.String(), "File:") {
			close(started)
			started = nil
		}
		return len(b), nil
	})
	begun := started
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { run.Wait(); close(ended) }()
	t.Cleanup(func() { run.Process.Signal(syscall.SIGINT); <-ended })
	select {
	case <-begun:
	case <-ended:
		need(t, "tshark that may capture on lo: "+log.String(), false)
	case <-time.After(time.Minute):
		t.Fatal("tshark captures nothing")
	}
}

type writes func([]byte) (int, error)

func (w writes) Write(b []byte) (int, error) { return w(b) }

// sayEverything uses every function, on a device that knows them and on one that refuses.
func sayEverything(t *testing.T, sim *modbussim.Server) {
	t.Helper()
	sim.Unit(1).Identify("Acme", "PX1", "1.2")
	sim.Unit(2)
	sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: modbussim.Touching(1, modbussim.Holding, 3, 3)})
	sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 1, Match: func(q modbussim.Request) bool { return q.Unit == 2 && (q.Write == 5 || q.Write == 6) }})
	list := append(tags(append(run("holding", 0, 200), "input:7", "coil:9", "discrete:11", "holding:400.3", "holding:500 float32")...), tagOf("holding:510 uint32 write_function=23"))
	c := drivers.Connection{URL: sim.URL(), Devices: []drivers.Device{device(sim.URL(), 1, list), device(sim.URL(), 2, list)}}
	c.Devices[0].Timeout, c.Devices[1].Timeout = 10*time.Second, 10*time.Second
	d := connect(t, c)
	for unit := range 2 {
		group := drivers.Ref{Device: unit}
		if _, err := d.Read(context.Background(), group, nil); err != nil {
			t.Fatal(err)
		}
		for i, err := range d.Write(context.Background(), []drivers.Write{{Group: group, Tag: 1, Value: telemetry.Uint(7)}, {Group: group, Tag: 201, Value: telemetry.Bool(true)},
			{Group: group, Tag: 203, Value: telemetry.Bool(true)}, {Group: group, Tag: 204, Value: telemetry.Float32(1.5)}, {Group: group, Tag: 205, Value: telemetry.Uint(7)}}) {
			if err != nil {
				t.Errorf("unit %d, write %d: %v", unit+1, i, err)
			}
		}
	}
	for _, ask := range []string{"012b0e0100", "022b0e0100", "0111"} {
		b, _ := hex.DecodeString(ask)
		if _, err := d.Ask(context.Background(), b); err != nil {
			t.Errorf("ask %s: %v", ask, err)
		}
	}
}
