package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers/modbus/modbussim"
)

// simReport is what the simulator process says of itself, one JSON line for each line it is sent.
type simReport struct {
	Addresses []string `json:"addresses,omitempty"`
	Scans     []uint64 `json:"scans,omitempty"` // scans begun, per device
	Registers uint64   `json:"registers"`       // served
}

// newSim runs the simulated devices in a process of their own, so that their cost is not the gateway's.
func newSim() *cobra.Command {
	var devices, dead, tags int
	var kind, driver, certificate string
	var line bool
	cmd := &cobra.Command{
		Use:    "sim",
		Short:  "Run the simulated devices (started by the scenarios)",
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if driver == "opcua" {
				return runServers(devices, tags, kind == "float32", certificate, cmd.InOrStdin(), cmd.OutOrStdout())
			}
			return runSim(devices, dead, line, kind == "float32", cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&devices, "devices", 1, "how many")
	cmd.Flags().IntVar(&dead, "dead", 0, "how many of them accept and never answer")
	cmd.Flags().IntVar(&tags, "tags", 0, "nodes of each OPC UA server")
	cmd.Flags().BoolVar(&line, "line", false, "all are units on one serial line")
	cmd.Flags().StringVar(&driver, "driver", "modbus", "modbus or opcua")
	cmd.Flags().StringVar(&certificate, "certificate", "", "file for the certificate of secured OPC UA servers")
	cmd.Flags().StringVar(&kind, "type", "uint16", "uint16 or float32")
	return cmd
}

// On the serial line of scenario "line" a character has 11 bits, and a device answers 5 ms after the pause of 1.75 ms that ends a request.
const (
	lineBaud      = 38400
	lineCharacter = 11 * time.Second / lineBaud
	lineAnswer    = 6750 * time.Microsecond
)

func runSim(n, dead int, line, floats bool, in io.Reader, out io.Writer) error {
	devices := make([]*scanDevice, n)
	first, shared := simReport{}, (*sharedLine)(nil)
	if line {
		shared = new(sharedLine)
	}
	var s *modbussim.Server
	for i := range devices {
		id := uint8(1)
		var err error
		switch {
		case !line:
			s, err = modbussim.Start(modbussim.Options{})
		case i == 0:
			s, err = modbussim.Start(modbussim.Options{Transport: "rtu", Character: lineCharacter, Answer: lineAnswer})
		default:
			id = uint8(i + 1)
		}
		if err != nil {
			return err
		}
		defer s.Close()
		devices[i] = &scanDevice{floats: floats, shared: shared, unit: s.Unit(id)}
		devices[i].unit.Fill(devices[i].fill)
		if i < dead {
			s.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.OfUnit(id)})
		}
		first.Addresses = append(first.Addresses, s.Addr())
	}
	return answer(in, out, first, func() (r simReport) {
		for _, d := range devices {
			r.Scans = append(r.Scans, d.scan.Load())
			r.Registers += d.unit.Served()
		}
		return r
	})
}

// answer says where the devices are and then reports at each line, until the parent hangs up.
func answer(in io.Reader, out io.Writer, first simReport, report func() simReport) error {
	enc := json.NewEncoder(out)
	if err := enc.Encode(first); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if err := enc.Encode(report()); err != nil {
			return err
		}
	}
	return nil
}

// scanDevice answers every register with the number of its present scan. A scan begins when register 0
// is read. The second and third value are the microsecond of that moment, in halves of 16 bits.
//
// On a serial line the gateway makes the first request to a unit after the opening twice, and keeps the last answer
// (drivers/modbus/DESIGN.md, "Fences"): that is one poll, so it is one scan, as long as no other unit is asked in between. Later
// scans are one request each, whatever is lost.
type scanDevice struct {
	unit   *modbussim.Unit
	floats bool
	shared *sharedLine // nil = it has a line of its own
	scan   atomic.Uint64
	at     atomic.Uint32
}

// sharedLine is a serial line with several units, whose requests come one after the other.
type sharedLine struct{ asked *scanDevice }

// begin begins a scan, unless this is the first one again.
func (d *scanDevice) begin() {
	again := false
	if d.shared != nil {
		again = d.scan.Load() == 1 && d.shared.asked == d
		d.shared.asked = d
	}
	if !again {
		d.scan.Add(1)
	}
	d.at.Store(uint32(time.Now().UnixMicro()))
}

func (d *scanDevice) fill(q modbussim.Request, dst []byte) {
	if q.Addr == 0 {
		d.begin()
	}
	if d.floats {
		d.fillFloats(int(q.Addr), dst)
		return
	}
	v := uint16(d.scan.Load())
	for i := 0; i+1 < len(dst); i += 2 {
		binary.BigEndian.PutUint16(dst[i:], v)
	}
	if q.Addr == 0 && len(dst) >= 6 {
		binary.BigEndian.PutUint32(dst[2:], d.at.Load())
	}
}

func (d *scanDevice) fillFloats(register int, dst []byte) {
	v := math.Float32bits(float32(d.scan.Load()))
	halves := [2]uint16{uint16(v >> 16), uint16(v)}
	for i := 0; i+1 < len(dst); i += 2 {
		binary.BigEndian.PutUint16(dst[i:], halves[(register+i/2)&1])
	}
	if register == 0 && len(dst) >= 12 {
		binary.BigEndian.PutUint32(dst[4:], math.Float32bits(float32(d.at.Load()>>16)))
		binary.BigEndian.PutUint32(dst[8:], math.Float32bits(float32(d.at.Load()&0xffff)))
	}
}

func float32frombits(b uint32) float32 { return math.Float32frombits(b) }

// simProcess is the simulator as a child.
type simProcess struct {
	cmd       *exec.Cmd
	in        io.WriteCloser
	out       *bufio.Scanner
	addresses []string
}

func startSim(o options, dir string) (*simProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &simProcess{cmd: exec.Command(self, "sim", "--driver", o.Driver, "--devices", fmt.Sprint(o.Devices),
		"--tags", fmt.Sprint(o.Tags), "--dead", fmt.Sprint(o.Dead), "--type", o.Kind, fmt.Sprintf("--line=%t", o.Line))}
	if o.Security != "none" {
		s.cmd.Args = append(s.cmd.Args, "--certificate", trustedFile(dir))
	}
	s.cmd.Stderr = os.Stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewScanner(out)
	s.out.Buffer(nil, 16<<20)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	r, err := s.next()
	s.addresses = r.Addresses
	return s, err
}

func (s *simProcess) next() (r simReport, err error) {
	if !s.out.Scan() {
		return r, fmt.Errorf("read simulator: %w", io.ErrUnexpectedEOF)
	}
	return r, json.NewDecoder(strings.NewReader(s.out.Text())).Decode(&r)
}

// report asks for the scans and registers served so far.
func (s *simProcess) report() (simReport, error) {
	if _, err := io.WriteString(s.in, "\n"); err != nil {
		return simReport{}, err
	}
	return s.next()
}

func (s *simProcess) stop() {
	_ = s.in.Close()
	_ = s.cmd.Wait()
}
