package opcuasim

import (
	"fmt"
	"math"
	"time"
)

// AddMachine adds the variables of a CNC machine to the first namespace. Their values are functions
// of the time since start: a part takes 40 s, of which 30 s are cutting; every 7th ends in an alarm.
//
//	Spindle.Speed  Double    rev/min      Axis.Position   Double[3]  mm (X, Y, Z)
//	Spindle.Load   Float     %            Feed.Override   Byte       %
//	Program.Name   String                 Alarm.Active    Boolean
//	Parts.Count    UInt32                 Machine.State   Int32 (0 idle, 1 cutting, 2 alarm)
func (s *Server) AddMachine(start time.Time) {
	add := func(name string, value func(m machine) any) {
		s.AddVariable(name, func() any { return value(machineAt(time.Since(start))) })
	}
	add("Spindle.Speed", func(m machine) any { return m.speed })
	add("Spindle.Load", func(m machine) any { return float32(m.load) })
	add("Program.Name", func(m machine) any { return m.program })
	add("Parts.Count", func(m machine) any { return m.parts })
	add("Alarm.Active", func(m machine) any { return m.alarm })
	add("Machine.State", func(m machine) any { return m.state })
	add("Axis.Position", func(m machine) any { return m.position })
	add("Feed.Override", func(m machine) any { return uint8(100) })
}

// machine is the state of the machine at one moment.
type machine struct {
	speed, load float64
	program     string
	parts       uint32
	state       int32
	alarm       bool
	position    []float64
}

func machineAt(t time.Duration) machine {
	const cycle, cutting = 40.0, 30.0
	sec := t.Seconds()
	part := math.Floor(sec / cycle)
	in := sec - part*cycle
	m := machine{
		parts:    uint32(part),
		program:  fmt.Sprintf("O%04d.NC", 1000+int(part)%3),
		position: []float64{0, 0, 120},
	}
	switch {
	case in < cutting:
		m.state = 1
		ramp := min(in, 2, cutting-in) / 2 // spin up and down in 2 s
		m.speed = math.Round(ramp * (8000 + 40*math.Sin(in*3)))
		m.load = ramp * (35 + 20*math.Sin(in*0.7) + 3*math.Sin(in*11))
		m.position = []float64{80 * math.Cos(in/3), 80 * math.Sin(in/3), 20 - in/2}
	case int(part)%7 == 6:
		m.state, m.alarm = 2, true
	}
	return m
}
