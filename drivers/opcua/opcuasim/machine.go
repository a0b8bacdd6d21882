package opcuasim

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// Machine is the machine of AddMachine as one finds it in a plant: in a tree, with units, ranges and descriptions, a history, and events. See AddMachineTree.
type Machine struct {
	server *Server
	start  time.Time
	parts  uint32

	overload, broken condition // as they were told last
}

// historyStep is between two values of the machine's history.
const historyStep = time.Second

// machineTree are the machine's variables.
var machineTree = []struct {
	name  string
	about About
	value func(m *machine) any
}{
	{"Spindle.Speed", About{Description: "speed of the spindle", Unit: "rev/min", Low: 0, High: 9000}, func(m *machine) any { return m.speed }},
	{"Spindle.Load", About{Description: "load of the spindle's drive", Unit: "%", Low: 0, High: 100}, func(m *machine) any { return float32(m.load) }},
	{"Program.Name", About{Description: "program under way"}, func(m *machine) any { return m.program }},
	{"Parts.Count", About{Description: "parts since it was switched on"}, func(m *machine) any { return m.parts }},
	{"Alarm.Active", About{Description: "somebody has to see to it"}, func(m *machine) any { return m.alarm }},
	{"Axis.Position", About{Description: "X, Y, Z", Unit: "mm", Low: -200, High: 200}, func(m *machine) any { return m.position }},
	{"Machine.State", About{Description: "0 idle, 1 cutting, 2 alarm"}, func(m *machine) any { return m.state }},
	{"Machine.Beat", About{Description: "counts ten times a second: none is missing, or something was lost"}, nil},
}

// AddMachineTree adds the machine below Objects/Machine, as switched on at start. Its history has a value each second since then. Nothing happens to
// it but in Step: whoever owns it calls that a few times a second.
func (s *Server) AddMachineTree(start time.Time) *Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range machineTree {
		value := func(at time.Time) any {
			if v.value == nil {
				return uint32(at.Sub(start) / (100 * time.Millisecond))
			}
			m := machineAt(at.Sub(start))
			return v.value(&m)
		}
		s.place("Machine."+strings.TrimPrefix(v.name, "Machine."), v.name, v.about, func() any { return value(time.Now()) })
		s.past[s.variable(v.name)] = past{
			n: func() int { return int(time.Since(start)/historyStep) + 1 },
			at: func(i int) *ua.DataValue {
				t := start.Add(time.Duration(i) * historyStep)
				return dataValue(value(t), t)
			},
		}
	}
	override := &Writable{Value: uint8(100)}
	s.writable[s.variable("Feed.Override")] = override
	s.place("Machine.Feed.Override", "Feed.Override", About{Description: "of the programmed feed", Unit: "%", Low: 0, High: 120}, func() any { return override.Value })
	s.placeServer(s.root.below[0].child(s.opts.Namespaces[0], "Machine"))
	return &Machine{server: s, start: start}
}

func (s *Server) variable(name string) node { return node{s.opts.Namespaces[0], "s=" + name} }

// placeServer puts the Server object, and what is known of it, before the others, and makes it and a machine tell events.
func (s *Server) placeServer(machine *place) {
	server := &place{uaURI, "Server", serverNode, nil, []*place{machine}}
	for n := range s.nodes {
		var number uint32
		if _, err := fmt.Sscanf(n.identifier, "i=%d", &number); err == nil && n.uri == uaURI {
			server.below, s.placed[n] = append(server.below, &place{uaURI, strings.ReplaceAll(strings.TrimPrefix(id.Name(number), "Server_"), "_", "."), n, nil, nil}), true
			s.about[n] = About{}
		}
	}
	s.root.below[0].below = append([]*place{server}, s.root.below[0].below...)
	s.notifiers[machine.at], s.notifiers[serverNode] = true, true
}

// place adds a variable by its browse path with dots, and what describes it.
func (s *Server) place(path, name string, a About, value func() any) {
	p := s.root.below[0]
	names := strings.Split(path, ".")
	for i, element := range names {
		next := p.child(s.opts.Namespaces[0], element)
		if next == nil {
			next = &place{s.opts.Namespaces[0], element, s.variable(strings.Join(names[:i+1], ".")), nil, nil}
			p.below = append(p.below, next)
		}
		p = next
	}
	p.at = s.variable(name)
	s.nodes[p.at], s.placed[p.at], s.about[p.at] = value, true, a
	if a.Unit == "" {
		return
	}
	for _, property := range []struct {
		name     string
		datatype uint32
		value    any
	}{{"EURange", id.Range, a.limits()}, {"EngineeringUnits", id.EUInformation, a.unit()}} {
		at := s.variable(name + "." + property.name)
		p.below = append(p.below, &place{uaURI, property.name, at, nil, nil})
		s.nodes[at], s.placed[at], s.about[at] = func() any { return property.value }, true, About{datatype: property.datatype}
	}
}

// condition is how one of the machine's conditions stands.
type condition int

const (
	normal condition = iota
	active
	over // and nobody has acknowledged it
)

// overloadAt is how the overload of the spindle's drive stands: it lasts for a second after the last peak, and somebody acknowledges it 3 s later.
func overloadAt(t time.Duration) condition {
	const high, step, lasts, seen = 50, 100 * time.Millisecond, time.Second, 4 * time.Second
	for back := time.Duration(0); back <= seen; back += step {
		switch peak := machineAt(t-back).load > high; {
		case peak && back <= lasts:
			return active
		case peak:
			return over
		}
	}
	return normal
}

// Step lets happen what happens until now: conditions begin and end, and each part is an event.
func (m *Machine) Step(now time.Time) {
	t := now.Sub(m.start)
	at := machineAt(t)
	tell := func(e Event) {
		e.Node, e.Time = "Machine", now
		m.server.Raise(e)
	}
	if at.parts != m.parts && m.parts != 0 {
		tell(Event{Source: "Parts", Severity: 100, Message: fmt.Sprintf("part %d is done, program %s begins", at.parts, at.program)})
	}
	m.parts = at.parts
	if is := overloadAt(t); is != m.overload {
		m.overload = is
		tell(stateOf(is, Event{Type: id.ExclusiveLimitAlarmType, Source: "Spindle.Load", Condition: "Overload", Severity: 600}, "High",
			fmt.Sprintf("the spindle's load is high: %d %%", int(math.Round(at.load))), "the spindle's load is normal"))
	}
	is := normal
	if at.alarm {
		is = active
	}
	if is != m.broken {
		m.broken = is
		tell(stateOf(is, Event{Type: id.AlarmConditionType, Source: "Tool", Condition: "ToolBroken", Severity: 900}, "", "the tool is broken", "the tool is changed"))
	}
}

// stateOf fills in how a condition stands.
func stateOf(c condition, e Event, limit, begins, ends string) Event {
	e.Message, e.Active, e.Acked, e.Retain = begins, c == active, c == normal, c != normal
	if e.Active {
		e.Limit = limit
	} else {
		e.Message, e.Severity = ends, 100
	}
	return e
}
