package opcua

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// noisy is a server with ten values that rise by 1 a second and jump by up to 0.4 at each sample, and devices that take them with and without a deadband.
func noisy(t *testing.T, o opcuasim.Options) (c drivers.Connection) {
	t.Helper()
	s := start(t, o, 0)
	begin, turn := time.Now(), atomic.Int64{}
	var addresses []string
	for i := range 10 {
		name := "n" + string(rune('0'+i))
		s.AddVariable(name, func() any { return time.Since(begin).Seconds() + 0.1*float64(turn.Add(1)%5) })
		addresses = append(addresses, "ns=2;s="+name)
	}
	c = connection(s.Endpoint(), 5*time.Second, addresses...)
	c.Devices[0].Groups[0].Interval = 20 * time.Millisecond
	for i := range addresses {
		c.Devices[0].Groups[0].Tags[i].Options = map[string]string{deadbandOption: "1.5"}
	}
	return c
}

// takeNoise counts the readings of some seconds, and returns the smallest step between two of one tag, the notes, and how many bytes came.
func takeNoise(t *testing.T, c drivers.Connection, lasts time.Duration) (readings int, least float64, note string, bytes int64) {
	t.Helper()
	url, n := counting(t, c.URL)
	c.URL = url
	d, pushes := subscribed(t, c)
	defer d.Close()
	last := map[uint32]float64{}
	least = 1e9
	end := time.Now().Add(lasts)
	next(t, pushes, func(p *drivers.Push) bool {
		note += p.Note
		for _, r := range p.Readings {
			now, _ := r.Value.Float()
			if before, ok := last[r.Tag]; ok {
				least = min(least, max(now-before, before-now))
			}
			last[r.Tag] = now
			readings++
		}
		return time.Now().After(end)
	})
	return readings, least, note, n.Load()
}

// counting is a path to a server that counts what it sends.
func counting(t *testing.T, url string) (path string, n *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	n = new(atomic.Int64)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(url, "opc.tcp://"))
			if err != nil {
				in.Close()
				return
			}
			go func() { defer out.Close(); io.Copy(out, in) }()
			go func() { defer in.Close(); io.Copy(in, io.TeeReader(out, byteCounter{n})) }()
		}
	}()
	return "opc.tcp://" + l.Addr().String(), n
}

type byteCounter struct{ n *atomic.Int64 }

func (c byteCounter) Write(b []byte) (int, error) { c.n.Add(int64(len(b))); return len(b), nil }

// TestServerDeadband: what lies within a tag's deadband does not cross the link, where the server has one; a server that refuses it pushes every change, and that is said.
func TestServerDeadband(t *testing.T) {
	t.Parallel()
	const lasts = 4 * time.Second
	few, step, note, small := takeNoise(t, noisy(t, opcuasim.Options{}), lasts)
	if few < 20 || few > 60 || step <= 1.5 || strings.Contains(note, "deadband") {
		t.Errorf("%d readings, steps of %v at least: %s", few, step, note)
	}
	for _, status := range []ua.StatusCode{ua.StatusBadMonitoredItemFilterUnsupported, ua.StatusBadFilterNotAllowed, ua.StatusBadDeadbandFilterInvalid} {
		many, step, note, large := takeNoise(t, noisy(t, opcuasim.Options{RefuseDeadband: uint32(status)}), lasts)
		if many < 4*few || step > 1 || !strings.Contains(note, "takes no server_deadband of 10 tags") {
			t.Errorf("%v: %d readings, steps of %v at least: %s", status, many, step, note)
		}
		t.Logf("FIGURES %s: in %v %d readings in %d bytes with the deadband, %d in %d bytes without", t.Name(), lasts, few, small, many, large)
	}
}

// TestServerDeadbandIsNotVerified: a read that says another value within the deadband finds no tag that has fallen silent.
func TestServerDeadbandIsNotVerified(t *testing.T) {
	t.Parallel()
	c := noisy(t, opcuasim.Options{})
	c.Devices[0].Options["verify_interval"] = "1s"
	for i := range c.Devices[0].Groups[0].Tags {
		c.Devices[0].Groups[0].Tags[i].Options[deadbandOption] = "1000"
	}
	if n, _, _, _ := takeNoise(t, c, 5*time.Second); n != 10 {
		t.Errorf("%d readings, want the first of each", n)
	}
}

// TestNodeOPCUADeadband has a deadband on a counter of node-opcua, and on a text, for which it has none.
func TestNodeOPCUADeadband(t *testing.T) {
	t.Parallel()
	c := connection(nodeOPCUA(t), 10*time.Second, "ns=1;s=Interop.Beat", "ns=1;s=Interop.String")
	c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
	for i := range c.Devices[0].Groups[0].Tags {
		c.Devices[0].Groups[0].Tags[i].Options = map[string]string{deadbandOption: "9"}
	}
	d, pushes := subscribed(t, c)
	defer d.Close()
	var beats []uint64
	note, text := "", ""
	next(t, pushes, func(p *drivers.Push) bool {
		note += p.Note
		for _, r := range p.Readings {
			if r.Tag == 1 {
				text = r.Value.Text
				continue
			}
			if n := len(beats); r.Quality != telemetry.Good || n > 0 && r.Value.Bits <= beats[n-1]+9 {
				t.Errorf("%+v after %v", r, beats)
			}
			beats = append(beats, r.Value.Bits)
		}
		return len(beats) > 4
	})
	if text != "Größe 5 µm" || !strings.Contains(note, "takes no server_deadband of 1 tag") {
		t.Errorf("text %q, note %q", text, note)
	}
}

// TestDeadbandOption: it is a number above 0, of what is a plain number and is pushed.
func TestDeadbandOption(t *testing.T) {
	for _, c := range []struct {
		band, typ, option, mode, silence, want string
	}{
		{"0.5", "", "", "", "", ""},
		{"5", "float32", "", "auto", "", ""},
		{"0", "", "", "", "", `server_deadband "0" is not a number above 0`},
		{"-1", "", "", "", "", "is not a number above 0"},
		{"NaN", "", "", "", "", "is not a number above 0"},
		{"Inf", "", "", "", "", "is not a number above 0"},
		{"1 %", "", "", "", "", "is not a number above 0"},
		{"1", "string", "", "", "", "of what is no number"},
		{"1", "bool", "", "", "", "of what is no number"},
		{"1", "event", "", "", "", "of what is no plain number"},
		{"1", "", "enum", "", "", "of what is no plain number"},
		{"1", "", "", "read", "", "mode is read"},
		{"1", "", "", "", "1m", "max_silence of a group with server_deadband"},
	} {
		conn := connection("opc.tcp://h", time.Second, "ns=2;s=a")
		g := &conn.Devices[0].Groups[0]
		g.Tags[0].Type, g.Tags[0].Options = c.typ, map[string]string{deadbandOption: c.band}
		if c.option != "" {
			g.Tags[0].Options[c.option] = "server"
		}
		if c.mode != "" {
			conn.Devices[0].Options["mode"] = c.mode
		}
		if c.silence != "" {
			g.Options = map[string]string{"max_silence": c.silence}
		}
		_, groups, err := parse(conn)
		if c.want == "" && (err != nil || len(groups[0][0].bands()) != 1) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
