package opcuasim

import (
	"fmt"
	"sync"
	"time"

	"github.com/gopcua/opcua/id"
)

// Data types of the machine.
const stepType, modeType = 3001, 3011

// AddTypes adds what has a data type of the machine's own: Program.Step, a structure, and Machine.Mode, an enumeration.
func (m *Machine) AddTypes() {
	s := m.server
	s.AddStructure(stepType, "StepType", Field{"number", id.UInt32, false}, Field{"tool", id.String, false}, Field{"feed", id.Double, false}, Field{"target", id.Double, true})
	s.AddEnumeration(modeType, "ModeType", "Manual", "Automatic", "Setup")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.place("Machine.Program.Step", "Program.Step", About{Description: "step of the program under way", own: s.numbered(stepType)}, func() any {
		at := time.Since(m.start)
		now, n := machineAt(at), uint32(at/(5*time.Second))%8
		return s.structure(stepType, n, fmt.Sprintf("T%02d", n%4+1), now.speed/20, now.position)
	})
	s.place("Machine.Mode", "Machine.Mode", About{Description: "how it is run", own: s.numbered(modeType)}, func() any {
		return int32(machineAt(time.Since(m.start)).parts % 3)
	})
}

// Counters are variables that count, so often a second, which may change.
type Counters struct {
	mu    sync.Mutex
	since time.Time
	base  float64
	rate  float64
}

// AddCounters adds variables Counters.N0 … that count, rate times a second.
func (m *Machine) AddCounters(count int, rate float64) *Counters {
	c := &Counters{since: time.Now(), rate: rate}
	m.server.mu.Lock()
	defer m.server.mu.Unlock()
	for i := range count {
		name := fmt.Sprintf("Counters.N%d", i)
		m.server.place("Machine."+name, name, About{Description: "counts at the rate of the counters"}, func() any { return c.Count() + uint32(i) })
	}
	return c
}

// Count returns what the first of them counts.
func (c *Counters) Count() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint32(c.base + c.rate*time.Since(c.since).Seconds())
}

// SetRate makes them count so often a second from now on.
func (c *Counters) SetRate(rate float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.base, c.since, c.rate = c.base+c.rate*now.Sub(c.since).Seconds(), now, rate
}

// Grow adds a variable Grown.<name>, a number that stays, and tells that the nodes have changed. Remove takes one away, and tells that, too.
func (m *Machine) Grow(name string) {
	m.server.mu.Lock()
	m.server.place("Machine.Grown."+name, "Grown."+name, About{Description: "came while the server ran"}, func() any { return uint32(1) })
	m.server.mu.Unlock()
	m.server.ModelChanged()
}

// Remove takes a variable out: see RemoveVariable.
func (m *Machine) Remove(name string) {
	m.server.RemoveVariable(name)
	m.server.ModelChanged()
}
