package opcua

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/telemetry"
)

// recorder forwards connections to a server and writes what passes as a file for Wireshark (pcap, raw IPv4), as if the server had port 4840.
type recorder struct {
	target string
	file   *os.File
	mu     sync.Mutex
	spoil  func([]byte) // what the file shows, not what is forwarded
}

// record returns the address to connect to, and the file.
func record(t *testing.T, target string, spoil func([]byte)) (addr, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "opcua.pcap")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); f.Close() })
	head := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	head = append(append(head, 2, 0, 4, 0), make([]byte, 8)...)
	head = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(head, 1<<18), 101) // LINKTYPE_RAW
	if _, err := f.Write(head); err != nil {
		t.Fatal(err)
	}
	r := &recorder{target: target, file: f, spoil: spoil}
	go func() {
		for port := uint16(50000); ; port++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(t, c, port)
		}
	}()
	return l.Addr().String(), file
}

func (r *recorder) serve(t *testing.T, client net.Conn, port uint16) {
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		client.Close()
		return
	}
	ports, next := [2]uint16{port, 4840}, [2]uint32{1, 1}
	pass := func(from int, src, dst net.Conn) {
		defer dst.Close()
		for b := make([]byte, 16384); ; {
			n, err := src.Read(b)
			if err != nil {
				return
			}
			r.mu.Lock()
			shown := append([]byte(nil), b[:n]...)
			if r.spoil != nil {
				r.spoil(shown)
			}
			if _, err := r.file.Write(packet(ports[from], ports[1-from], next[from], next[1-from], shown)); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
			next[from] += uint32(n)
			r.mu.Unlock()
			if _, err := dst.Write(b[:n]); err != nil {
				return
			}
		}
	}
	go pass(1, server, client)
	pass(0, client, server)
}

// packet returns a record of a pcap file: one TCP segment.
func packet(from, to uint16, seq, ack uint32, data []byte) []byte {
	now, size := time.Now(), 40+len(data)
	var b []byte
	for _, v := range []uint32{uint32(now.Unix()), uint32(now.Nanosecond() / 1000), uint32(size), uint32(size)} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = append(b, 0x45, 0, byte(size>>8), byte(size), 0, 0, 0x40, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, from), to)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, seq), ack)
	return append(append(b, 5<<4, 0x18, 0xff, 0xff, 0, 0, 0, 0), data...)
}

// tshark reads a file and returns what it prints.
func tshark(t *testing.T, file string, args ...string) string {
	t.Helper()
	cmd := exec.Command("tshark", append([]string{"-r", file}, args...)...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark %q: %v %s", args, err, said.String())
	}
	return string(out)
}

func needTshark(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		drivertest.Lacks(t, "tshark is not here: apt-get install tshark")
	}
}

// TestWireshark does with node-opcua whatever the driver can, unsecured, signed and encrypted, and has Wireshark read what passed: all of it is OPC UA, nothing is
// malformed, and every service that is used can be seen as far as it is not encrypted. With one byte of each segment changed it is malformed.
func TestWireshark(t *testing.T) {
	t.Parallel()
	needTshark(t)
	url := nodeOPCUA(t, "alarms")
	for _, c := range []struct {
		name, mode string
		spoil      func([]byte)
	}{
		{"unsecured", "", nil},
		{"signed", "sign", nil},
		{"encrypted", "sign-and-encrypt", nil},
		{"spoilt", "", func(b []byte) { b[len(b)/2] ^= 0xff }},
		{"encrypted, spoilt", "sign-and-encrypt", func(b []byte) {
			if string(b[:3]) == "MSG" {
				b[1] ^= 0x7f
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, file := record(t, strings.TrimPrefix(url, "opc.tcp://"), c.spoil)
			device := connection("opc.tcp://"+addr, 10*time.Second)
			if c.mode != "" {
				device = nodeDevice(t, "opc.tcp://"+addr)
				device.Devices[0].Options["security_mode"] = c.mode
			}
			everything(t, device)
			wrong := "(_ws.malformed || _ws.expert.severity == error)"
			if c.mode == "sign-and-encrypt" { // Wireshark 4.0 reads what is encrypted as if it were not, and now and then that looks like a service
				wrong += ` && !(opcua.transport.type == "MSG" || opcua.transport.type == "CLO")`
			}
			wrong = "(" + wrong + ") || (tcp.len > 0 && !opcua.transport.type && !tcp.segment_data && !tcp.reassembled_in)"
			malformed := tshark(t, file, "-Y", wrong)
			if (malformed == "") != (c.spoil == nil) {
				t.Errorf("Wireshark finds wrong:\n%s", malformed)
			}
			if c.spoil == nil {
				seenServices(t, file, c.mode)
			}
		})
	}
}

// seenServices wants a request of each service in a file.
func seenServices(t *testing.T, file, mode string) {
	t.Helper()
	frames := tshark(t, file, "-Y", "opcua", "-T", "fields", "-e", "opcua.servicenodeid.numeric")
	kinds := map[string]int{}
	for _, s := range strings.FieldsFunc(frames, func(r rune) bool { return r == '\n' || r == ',' }) {
		kinds[s]++
	}
	services := []int{id.GetEndpointsRequest_Encoding_DefaultBinary, id.OpenSecureChannelRequest_Encoding_DefaultBinary}
	if mode != "sign-and-encrypt" {
		services = append(services, id.CreateSessionRequest_Encoding_DefaultBinary, id.ActivateSessionRequest_Encoding_DefaultBinary, id.ReadRequest_Encoding_DefaultBinary,
			id.WriteRequest_Encoding_DefaultBinary, id.CallRequest_Encoding_DefaultBinary, id.BrowseRequest_Encoding_DefaultBinary, id.HistoryReadRequest_Encoding_DefaultBinary,
			id.CreateSubscriptionRequest_Encoding_DefaultBinary, id.CreateMonitoredItemsRequest_Encoding_DefaultBinary, id.PublishRequest_Encoding_DefaultBinary,
			id.TranslateBrowsePathsToNodeIDsRequest_Encoding_DefaultBinary, id.CloseSessionRequest_Encoding_DefaultBinary, id.CloseSecureChannelRequest_Encoding_DefaultBinary)
	}
	for _, s := range services {
		if kinds[strconv.Itoa(s)] == 0 {
			t.Errorf("no request %d among %v", s, kinds)
		}
	}
	t.Logf("FIGURES %s: %d frames of OPC UA, %d kinds of messages, 0 malformed", t.Name(), strings.Count(frames, "\n"), len(kinds))
}

// everything reads, subscribes to values and events, writes, calls, browses, and asks for the history and what the types are.
func everything(t *testing.T, device drivers.Connection) {
	t.Helper()
	if _, err := Offers(t.Context(), device.URL, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	c := connection(device.URL, 10*time.Second, "ns=1;s=Interop.Beat", "ns=1;s=Interop.Recipe", "ns=1;s=Interop.Steps", "ns=1;s=Interop.Matrix", "ns=1;s=Interop.Text", "ns=1;s=Interop.Missing",
		"ns=1;s=Interop.Level", "ns=1;s=Interop.DateTime", "/Objects/1:Interop/1:Double", "ns=1;s=Interop.Tank")
	for i := 1; i < 6; i++ {
		c.Devices[0].Groups[0].Tags[i].Type = "json"
	}
	c.Devices[0].Options = device.Devices[0].Options
	eventTag(c, 9, nil)
	writes := nodeGroup(time.Second, "Writable.UInt32", "Writable.DoubleArray", "Writable.String")
	c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
	c.Devices[0].Groups = append(c.Devices[0].Groups, writes)
	d, pushes := subscribed(t, c)
	defer d.Close()
	events, beats := 0, 0
	next(t, pushes, func(p *drivers.Push) bool {
		for _, r := range p.Readings {
			switch r.Tag {
			case 0:
				beats++
			case 9:
				events++
			}
		}
		return events > 5 && beats > 10
	})
	values := []telemetry.Value{telemetry.Uint(7), telemetry.Array([]telemetry.Value{telemetry.Float64(0.5)}), telemetry.String("µ")}
	for i, v := range values {
		if err := errors.Join(d.Write(t.Context(), []drivers.Write{{Group: drivers.Ref{Group: 1}, Tag: i, Value: v}})...); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.Read(t.Context(), drivers.Ref{Group: 1}, nil); err != nil {
		t.Error(err)
	}
	for _, err := range d.Browse(t.Context(), "") {
		if err != nil {
			t.Error(err)
		}
	}
	now := time.Now()
	_ = d.History(t.Context(), drivers.Ref{}, now.Add(-time.Second).UnixMicro(), now.UnixMicro(), func([]telemetry.Reading) error { return nil }) // most tags have none
	callSum(t, device)
}

// callSum calls a method of node-opcua.
func callSum(t *testing.T, device drivers.Connection) {
	t.Helper()
	c, err := Dial(t.Context(), device)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m, err := c.Method(t.Context(), "ns=1;s=Writable", "Sum")
	if err != nil {
		t.Fatal(err)
	}
	list := telemetry.Array([]telemetry.Value{telemetry.Uint(10)})
	if _, err := c.Call(t.Context(), m, []telemetry.Value{telemetry.Float64(2), list, telemetry.Int(1)}); err != nil {
		t.Error(err)
	}
}
