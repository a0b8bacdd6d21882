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

// Summarise says the most urgent thing first: a buffer that cannot keep records, then uplinks that are
// down or refuse messages, then devices that do not answer, then a config that was refused.
func (s *Snapshot) Summarise() Summary {
	if s.Buffer.Health != HealthOK {
		return Summary{LevelBad, "The buffer does not keep readings: " + s.Buffer.Health}
	}
	var parts []string
	level := LevelOK
	if text := s.links(); text != "" {
		level, parts = LevelWarn, append(parts, text)
	}
	for i := range s.Destinations {
		if text := s.Destinations[i].refuses(); text != "" {
			level, parts = LevelWarn, append(parts, text)
		}
	}
	if text := s.silent(); text != "" {
		level, parts = LevelWarn, append(parts, text)
	}
	if text := s.absent(); text != "" {
		level, parts = LevelWarn, append(parts, text)
	}
	if s.Config.Problem != "" {
		level, parts = LevelWarn, append(parts, "The last reload of the config was refused; the one before runs on.")
	}
	if level == LevelWarn {
		return Summary{level, strings.Join(parts, " ")}
	}
	return Summary{level, s.quiet()}
}

func (s *Snapshot) links() string {
	var down []*Destination
	var kept uint64
	for i := range s.Destinations {
		if d := &s.Destinations[i]; d.State != StateConnected {
			down = append(down, d)
			kept = max(kept, d.BacklogReadings)
		}
	}
	if len(down) == 0 {
		return ""
	}
	text := fmt.Sprintf("%d of %d destinations down", len(down), len(s.Destinations))
	if len(down) == 1 {
		text = "Destination " + down[0].Name + " down"
		if !down[0].Since.IsZero() {
			text += " for " + Span(s.Now.Sub(down[0].Since))
		}
	}
	text += "; " + count(kept, "reading") + " kept"
	if h := s.Buffer.OutageHours; h != nil {
		text += ", enough space for " + Span(time.Duration(min(*h, 87600)*float64(time.Hour)))
	}
	return text + "."
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
	return fmt.Sprintf("%s refuses messages of %s: %s held back, the rest flows.", d.Name, whose, count(d.Held, "record"))
}

// absent says what destinations hold that are not in the config any more.
func (s *Snapshot) absent() string {
	if len(s.Absent) == 0 {
		return ""
	}
	a := &s.Absent[0]
	text := fmt.Sprintf("Destination %s is not in the config any more and keeps %s in the store; `millrace buffer forget %s` gives them up", a.Name, count(a.Readings, "reading"), a.Name)
	if more := len(s.Absent) - 1; more > 0 {
		text += fmt.Sprintf("; so do %d more", more)
	}
	return text + "."
}

func (s *Snapshot) silent() string {
	var names []string
	var bad *Device
	for i := range s.Devices {
		d := &s.Devices[i]
		switch {
		case d.Up && d.Reason == "" && d.allBad():
			bad = d
		case !d.Live():
			names = append(names, d.Name)
		}
	}
	text := s.unanswered(names)
	if bad != nil {
		text = strings.TrimSpace(text + fmt.Sprintf(" Device %s answers, and all its %s are bad.", bad.Name, count(uint64(bad.Tags), "tag")))
	}
	return text
}

func (s *Snapshot) unanswered(names []string) string {
	switch {
	case len(names) == 0:
		return ""
	case len(names) == 1:
		return fmt.Sprintf("Device %s does not answer; %d of %d live.", names[0], s.live(), len(s.Devices))
	case len(names) <= 3:
		return fmt.Sprintf("Devices %s do not answer; %d of %d live.", strings.Join(names, ", "), s.live(), len(s.Devices))
	}
	return fmt.Sprintf("%d of %d devices do not answer.", len(names), len(s.Devices))
}

func (s *Snapshot) quiet() string {
	live := "All " + count(uint64(len(s.Devices)), "device") + " live"
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
		return live + "; " + count(backlog, "kept reading") + " still to deliver."
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

func count(n uint64, noun string) string {
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

// live is how many devices are.
func (s *Snapshot) live() (n int) {
	for i := range s.Devices {
		if s.Devices[i].Live() {
			n++
		}
	}
	return n
}
