package web

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Summary is the state of the gateway in one sentence.
type Summary struct {
	Level string `json:"level"` // LevelOK, LevelWarn or LevelBad
	Text  string `json:"text"`
}

// The levels of a Summary.
const (
	LevelOK   = "ok"   // nothing to do
	LevelWarn = "warn" // something is down, nothing is lost
	LevelBad  = "bad"  // readings are being lost, or are about to be
)

// Summarise says the loudest state, and how many more there are.
func (s *Snapshot) Summarise() Summary {
	if len(s.States) == 0 {
		return Summary{LevelOK, s.quiet()}
	}
	text := s.States[0].String() + "."
	if h := s.Buffer.OutageHours; h != nil && s.States[0].Kind == "destination" && s.States[0].State == StateDown {
		text += " Enough space for " + Span(time.Duration(min(*h, 87600)*float64(time.Hour))) + "."
	}
	if more := len(s.States) - 1; more > 0 {
		text += fmt.Sprintf(" And %d more.", more)
	}
	return Summary{s.States[0].Level(), text}
}

func (d *Destination) refuses() string {
	if len(d.Breakers) == 0 {
		return ""
	}
	var names []string
	for i := range d.Breakers {
		if name := d.Breakers[i].Device; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	whose := fmt.Sprintf("%d devices", len(names))
	if len(names) <= 3 {
		whose = strings.Join(names, ", ")
	}
	if len(d.Breakers) == 1 { // the device's other groups may flow
		whose += fmt.Sprintf(" on topic %q", d.Breakers[0].Topic)
	}
	return fmt.Sprintf("it refuses messages of %s: %s held back, the rest flows", whose, Count(d.Held, "record"))
}

func (s *Snapshot) quiet() string {
	live := "All " + Count(uint64(len(s.Devices)), "device") + " live"
	switch len(s.Devices) {
	case 0:
		live = "No devices configured"
	case 1:
		live = "The device is live"
	}
	var backlog uint64
	for i := range s.Destinations {
		backlog = max(backlog, s.Destinations[i].BacklogReadings)
	}
	switch {
	case len(s.Destinations) == 0:
		return live + "; no destinations configured."
	case s.draining():
		return live + "; " + Count(backlog, "kept reading") + " still to deliver."
	}
	return live + "; everything delivered."
}

// settled is how old the oldest unacknowledged record may be on a healthy uplink; older ones are a backlog.
const settled = 5 * time.Second

func (s *Snapshot) draining() bool {
	for i := range s.Destinations {
		if d := &s.Destinations[i]; d.BacklogReadings > 0 && d.OldestAge > settled {
			return true
		}
	}
	return false
}

// Span returns a duration as a person says it, with at most two units: "41 h", "3 m 12 s", "0.4 s".
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d m %d s", d/time.Minute, d%time.Minute/time.Second)
	case d < 10*time.Hour:
		return fmt.Sprintf("%d h %d m", d/time.Hour, d%time.Hour/time.Minute)
	case d < 72*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/(24*time.Hour))
}

// Count returns a number with its noun, in the plural unless it is 1.
func Count(n uint64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return Thousands(n) + " " + noun
}

// Thousands returns n with a comma between each three digits.
func Thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
