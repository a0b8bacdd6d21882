package modbustool

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/modbus/modbussim"
)

// plant is simulated devices on one or several lines.
type plant struct {
	started time.Time
	servers []*modbussim.Server
	about   []string // of each server, for people
	signals []*tagSignal
	units   []*modbussim.Unit // of each signal
	lines   []int             // of each signal: which server
	left    []string          // tags for which no value was found
	callers []*caller
	tls     *tls.Config // of lines with tcp+tls
}

// add serves the devices of one connection. listen is host:port, "" for a pseudo-terminal.
func (p *plant) add(c drivers.Connection, transport, listen string) error {
	places, err := modbus.Places(c)
	if err != nil {
		return err
	}
	o := modbussim.Options{Addr: listen, Transport: transport, TLS: p.tls}
	if listen == "" {
		o.Character, o.Answer = modbus.LineTimes(c.URL)
	}
	server, err := modbussim.Start(o)
	if err != nil {
		return fmt.Errorf("serve %s: %w", c.URL, err)
	}
	p.servers = append(p.servers, server)
	var names []string
	for i, d := range c.Devices {
		names = append(names, d.Name)
		for j, g := range d.Groups {
			for k, t := range g.Tags {
				unit := server.Unit(places[i][j][k].Unit)
				unit.Identify("millrace simulator", d.Name[:min(len(d.Name), 100)], "1")
				p.signals, p.units, p.lines = append(p.signals, newSignal(t, places[i][j][k])), append(p.units, unit), append(p.lines, len(p.servers)-1)
			}
		}
	}
	p.about = append(p.about, strings.Join(names, ", "))
	return nil
}

// close ends all servers.
func (p *plant) close() {
	for _, s := range p.servers {
		s.Close()
	}
}

// work sets every tag as it is at a moment: first whole registers, then those that are parts of one.
func (p *plant) work(now time.Time) {
	p.left = p.left[:0]
	for _, partial := range []bool{false, true} {
		for i, s := range p.signals {
			if s.place.Partial() == partial && s.mine && !p.put(s, p.units[i], now) {
				p.left = append(p.left, s.tag.Name)
			}
		}
	}
}

// put sets one tag. A register that a client has written is left to it from then on.
func (p *plant) put(s *tagSignal, unit *modbussim.Unit, now time.Time) bool {
	table, first := modbussim.Table(s.place.Function), uint16(s.place.First)
	data := unit.Held(table, first, s.place.Count)
	if s.last != nil && !s.place.Partial() && !bytes.Equal(data, s.last) {
		s.mine = p.shared(s)
		if !s.mine {
			return true
		}
	}
	for _, v := range s.values(now, now.Sub(p.started)) {
		if s.place.Put(data, v) != nil {
			continue
		}
		s.last, s.value = slices.Clone(data), v
		if table.Bits() {
			unit.SetBits(table, first, data[0] != 0)
			return true
		}
		words := make([]uint16, s.place.Count)
		for i := range words {
			words[i] = binary.BigEndian.Uint16(data[2*i:])
		}
		unit.SetRegisters(table, first, words...)
		return true
	}
	return false
}

// shared reports whether another tag lies in the same registers, so that a change there may be its.
func (p *plant) shared(s *tagSignal) bool {
	for _, o := range p.signals {
		a, b := &o.place, &s.place
		if o != s && a.Unit == b.Unit && a.Function == b.Function && a.First < b.First+b.Count && b.First < a.First+a.Count {
			return true
		}
	}
	return false
}

// inject adds a fault to all lines. What is said of gaps strikes what asks for a register or bit that no tag of its unit has.
func (p *plant) inject(f modbussim.Fault, gaps bool) {
	for line, s := range p.servers {
		if gaps {
			f.Code, f.Match = 2, p.untagged(line)
		}
		s.Inject(f)
	}
}

// untagged matches the requests to a line that ask for more than its tags.
func (p *plant) untagged(line int) func(modbussim.Request) bool {
	type at struct {
		unit, function byte
		number         int
	}
	tagged := map[at]bool{}
	for i, s := range p.signals {
		for n := range s.place.Count {
			if p.lines[i] == line {
				tagged[at{s.place.Unit, s.place.Function, s.place.First + n}] = true
			}
		}
	}
	return func(q modbussim.Request) bool {
		for n := range int(q.Count) {
			if !tagged[at{q.Unit, byte(q.Table), int(q.Addr) + n}] {
				return true
			}
		}
		return false
	}
}

// nextPort returns the address with the port after it.
func nextPort(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	n, err2 := strconv.Atoi(port)
	if err != nil || err2 != nil || n >= 65535 {
		return "", fmt.Errorf("listen %q: it is no host:port with room for one line each", listen)
	}
	if n == 0 {
		return listen, nil // a free one each time
	}
	return net.JoinHostPort(host, strconv.Itoa(n+1)), nil
}
