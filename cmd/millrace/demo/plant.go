package demo

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/opcua/opcuasim"
	"millrace/gateway/config"
)

// plant is the simulated equipment. It counts what it serves itself, per reading, without help from the
// gateway: a reading is served when the last bytes of a tag's value are put into a right answer.
type plant struct {
	started time.Time
	closing chan struct{} // closed when the connections end

	meter, press, tank *modbussim.Server
	cnc                *opcuasim.Server
	over               atomic.Bool
	hung               sync.Once
	served             map[string]*served // by device, complete before the gateway starts
}

// served counts the readings of one device.
type served struct {
	about string
	ports []port            // Modbus: where its tags lie
	nodes map[string]uint64 // OPC UA: how many tags read an identifier
	count atomic.Uint64
}

// port is where one tag lies in a Modbus device.
type port struct {
	table       modbussim.Table
	first, last uint16
}

func startPlant() (*plant, error) {
	p := &plant{started: time.Now(), closing: make(chan struct{}), served: map[string]*served{
		"meter-1": {about: "energy meter, Modbus"},
		"press-1": {about: "press, Modbus"},
		"tank-1":  {about: "tank, Modbus"},
		"cnc-1":   {about: "milling machine, OPC UA"},
	}}
	if err := p.start(); err != nil {
		p.hangUp()
		return nil, err
	}
	return p, nil
}

func (p *plant) start() (err error) {
	for _, m := range []struct {
		name   string
		server **modbussim.Server
	}{{"meter-1", &p.meter}, {"press-1", &p.press}, {"tank-1", &p.tank}} {
		s := p.served[m.name]
		if *m.server, err = modbussim.Start(modbussim.Options{Served: s.answered}); err != nil {
			return fmt.Errorf("start simulated %s: %w", m.name, err)
		}
	}
	if p.cnc, err = opcuasim.New(opcuasim.Options{Served: p.served["cnc-1"].sent, OnRead: p.hold}); err != nil {
		return fmt.Errorf("make simulated cnc-1: %w", err)
	}
	p.cnc.AddMachine(p.started)
	p.work(0)
	if err = p.cnc.Start(); err != nil {
		return fmt.Errorf("start simulated cnc-1: %w", err)
	}
	return nil
}

// expect tells the simulators which addresses are tags, so that they can count readings.
func (p *plant) expect(cfg *config.Config) error {
	for i := range cfg.Devices {
		d := &cfg.Devices[i]
		s := p.served[d.Name]
		if s == nil {
			return fmt.Errorf("BUG: the demo's config has a device %q that no simulator plays", d.Name)
		}
		s.nodes = map[string]uint64{}
		for j := range d.Groups {
			for _, tag := range d.Groups[j].Tags {
				if d.Driver == "opcua" {
					_, id, _ := strings.Cut(tag.Address, ";")
					s.nodes[id]++
					continue
				}
				at, err := portOf(tag.Address, tag.Type)
				if err != nil {
					return err
				}
				s.ports = append(s.ports, at)
			}
		}
	}
	return nil
}

func portOf(address, kind string) (port, error) {
	name, number, _ := strings.Cut(address, ":")
	table := modbussim.Table(1 + slices.Index([]string{"coil", "discrete", "holding", "input"}, name))
	first, err := strconv.ParseUint(number, 10, 16)
	if table == 0 || err != nil {
		return port{}, fmt.Errorf("BUG: the demo's config has the address %q", address)
	}
	words := uint16(1)
	if strings.HasSuffix(kind, "32") {
		words = 2
	}
	return port{table, uint16(first), uint16(first) + words - 1}, nil
}

// answered counts the tags that lie wholly within an answer.
func (s *served) answered(q modbussim.Request, _ []byte) {
	var n uint64
	for _, at := range s.ports {
		if at.table == q.Table && at.first >= q.Addr && int(at.last) < int(q.Addr)+int(q.Count) {
			n++
		}
	}
	s.count.Add(n)
}

func (s *served) sent(identifier string, _ any) { s.count.Add(s.nodes[identifier]) }

// hold keeps the OPC UA machine from answering once the day is over.
func (p *plant) hold([]string) uint32 {
	if p.over.Load() {
		<-p.closing
	}
	return 0
}

// run lets the equipment work until ctx ends.
func (p *plant) run(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.work(now.Sub(p.started).Seconds())
		}
	}
}

// quiet ends the day: connections stay, and no request is answered any more. What was served is read.
func (p *plant) quiet() {
	p.over.Store(true)
	for _, s := range []*modbussim.Server{p.meter, p.press, p.tank} {
		s.Inject(modbussim.Fault{Kind: modbussim.Silence})
	}
}

// hangUp ends all connections. Whoever waits for an answer waits no longer.
func (p *plant) hangUp() {
	p.hung.Do(func() { close(p.closing) })
	for _, s := range []*modbussim.Server{p.meter, p.press, p.tank} {
		if s != nil {
			s.Close()
		}
	}
	if p.cnc != nil {
		p.cnc.Close()
	}
}

// account returns the readings served so far by device.
func (p *plant) account() map[string]uint64 {
	n := map[string]uint64{}
	for name, s := range p.served {
		n[name] = s.count.Load()
	}
	return n
}

func (p *plant) total() (n uint64) {
	for _, s := range p.served {
		n += s.count.Load()
	}
	return n
}

// work sets every register as it is t seconds after the start.
func (p *plant) work(t float64) {
	force, position, strokes := stroke(t)
	load := 12 + 3*math.Sin(t/9) + 0.4*math.Sin(t*5) + force/25 // the shop's other machines and the press
	wave := func(phase float64) float64 { return 230 + 1.8*math.Sin(t/17+phase) + 0.3*math.Sin(t*3+phase) - load/20 }

	meter := p.meter.Unit(1)
	var r []uint16
	for _, v := range []float64{wave(0), wave(2), wave(4), load * 1000 / 3 / 230, load, 50 + 0.02*math.Sin(t/5)} {
		r = append(r, float32ABCD(v)...)
	}
	energy := uint32(1_284_000_000 + load*t/3.6) // Wh
	meter.SetRegisters(modbussim.Input, 0, append(r, uint16(energy>>16), uint16(energy))...)

	press := p.press.Unit(1)
	die := 184 + 6*math.Sin(t/60) + force/200
	press.SetRegisters(modbussim.Holding, 100, uint16(int16(force)), uint16(position*10), uint16(int16(die*10)), uint16(strokes>>16), uint16(strokes))
	press.SetBits(modbussim.Coil, 7, true, false)

	tank := p.tank.Unit(7)
	level := 2.4 + 0.9*math.Sin(t/25)
	filling := math.Cos(t/25) > 0
	in, out := 8.0, 42+3*math.Sin(t/4)
	if filling {
		in = 95
	}
	r = append(float32CDAB(level), float32CDAB(61+2*math.Sin(t/40))...)
	tank.SetRegisters(modbussim.Holding, 0, append(r, uint16(in*10), uint16(out*10))...)
	tank.SetBits(modbussim.Coil, 0, filling)
	tank.SetBits(modbussim.Discrete, 0, level > 3.2)
}

// stroke is the press: a stroke each 1.6 s, of which the ram is down for a third.
func stroke(t float64) (force, position float64, strokes uint32) {
	const period, top = 1.6, 320.0
	n := math.Floor(t / period)
	in := t/period - n
	position = top
	if in < 0.6 {
		position = top * (0.5 + 0.5*math.Cos(in/0.6*2*math.Pi))
	}
	if position < 150 {
		force = 800 * (1 - position/150)
	}
	return force, position, 48_211 + uint32(n)
}

func float32ABCD(v float64) []uint16 {
	b := math.Float32bits(float32(v))
	return []uint16{uint16(b >> 16), uint16(b)}
}

func float32CDAB(v float64) []uint16 {
	b := math.Float32bits(float32(v))
	return []uint16{uint16(b), uint16(b >> 16)}
}
