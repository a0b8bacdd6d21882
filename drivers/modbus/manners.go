package modbus

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// manners is what was learned of a unit and its line that options can say: it is compared after each poll, and put into words
// only where it is another one.
type manners struct {
	between, connect time.Duration // of the line, 0 = not learned
	registers, bits  uint32        // the most in one request, 0 = not learned
	cuts             int           // how often it was learned anew what lies between the tags
}

// shown is what other goroutines may look at.
type shown struct {
	mu      sync.Mutex
	learned []map[string]string // by device, in the words of the options
	forget  []bool              // by device: asked for, and done before its next poll
}

// maxLearned is how many stretches between the tags of a unit are told of.
const maxLearned = 32

// Learned returns what was learned of a device and its line: see drivers.Learner.
func (d *driver) Learned(device int) map[string]string {
	d.shown.mu.Lock()
	defer d.shown.mu.Unlock()
	return d.shown.learned[device]
}

// publish shows what was learned, where it is not what is shown.
func (d *driver) publish(u *unit) {
	m := u.manners(&d.link.pace)
	if m == u.told {
		return
	}
	d.shown.mu.Lock()
	defer d.shown.mu.Unlock()
	if slices.Contains(d.shown.forget, true) {
		return // what it is about is to be forgotten
	}
	u.told = m
	for i := range d.units { // the pace is that of all
		d.shown.learned[i] = d.options(i)
	}
}

func (u *unit) manners(p *pace) manners {
	m := manners{cuts: u.cuts, between: p.told(trialBetween), connect: p.told(trialConnect)}
	if most, ok := u.limits[0].known(); ok {
		m.registers = most
	}
	if most, ok := u.limits[1].known(); ok {
		m.bits = most
	}
	return m
}

// options says in the words of options what was learned of a device. Each can stand in the config as it is.
func (d *driver) options(device int) map[string]string {
	u := d.units[device]
	m := u.manners(&d.link.pace)
	o := map[string]string{}
	if m.between > 0 {
		o["pause_between_requests"] = m.between.String()
	}
	if m.connect > 0 {
		o["pause_after_connect"] = m.connect.String()
	}
	if m.registers > 0 && m.registers >= d.longest(device) { // else the config would refuse the tag that the device refuses
		o["max_registers"] = fmt.Sprint(m.registers)
	}
	if m.bits > 0 {
		o["max_bits"] = fmt.Sprint(m.bits)
	}
	if gap, ok := d.learnedGap(u); ok {
		o["max_gap"] = fmt.Sprint(gap)
	} else if between := d.between(device); len(between) > 0 {
		o["forbidden"] = stretchesText(append(slices.Clone(u.forbidden), between...))
	}
	if len(o) == 0 {
		return nil
	}
	return o
}

// longest is how many registers the longest tag of a device has.
func (d *driver) longest(device int) (most uint32) {
	for _, g := range d.groups[device] {
		for i := range g.fields {
			most = max(most, uint32(g.fields[i].count))
		}
	}
	return most
}

// between returns the stretches between tags that the device refuses to have read across, less what tags of other groups read there: to
// forbid that would be a mistake in the config.
func (d *driver) between(device int) (list []stretch) {
	for _, g := range d.groups[device] {
		for _, s := range g.spans {
			for i := range s.gaps(0, len(s.atoms)) {
				if s.cuts[i] != refused {
					continue
				}
				for _, gap := range d.unasked(device, s.before(i)) {
					if !slices.Contains(list, gap) && len(list) < maxLearned {
						list = append(list, gap)
					}
				}
			}
		}
	}
	return list
}

// unasked returns what no tag of a device reads of a stretch.
func (d *driver) unasked(device int, all stretch) []stretch {
	free := []stretch{all}
	for _, g := range d.groups[device] {
		for i := range g.fields {
			f := &g.fields[i]
			if f.table != all.table {
				continue
			}
			var left []stretch
			for _, s := range free {
				if end := f.number + uint32(f.count); end <= s.first || f.number > s.last {
					left = append(left, s)
				} else {
					if f.number > s.first {
						left = append(left, stretch{s.table, s.first, f.number - 1})
					}
					if end <= s.last {
						left = append(left, stretch{s.table, end, s.last})
					}
				}
			}
			free = left
		}
	}
	return free
}

// before returns the registers that nobody asked for before an atom.
func (s *span) before(atom int) stretch {
	_, end := s.extent(0, atom)
	return stretch{s.table, end, s.atoms[atom].reg - 1}
}

// stretchesText is what parseForbidden reads.
func stretchesText(list []stretch) string {
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = fmt.Sprintf("%s:%d", s.table, s.first)
		if s.last > s.first {
			words[i] += fmt.Sprintf("-%d", s.last)
		}
	}
	return strings.Join(words, ", ")
}

// Restore takes over what Learned said of a device: see drivers.Learner. What the config says counts more.
func (d *driver) Restore(device int, learned map[string]string) error {
	u, p, r := d.units[device], &d.link.pace, &reporter{device: device, group: -1, tag: -1}
	for name := range learned {
		if !slices.Contains([]string{"pause_between_requests", "pause_after_connect", "max_registers", "max_bits", "max_gap", "forbidden"}, name) {
			r.add(name, fmt.Sprintf("%s %q: it is not an option that is learned", name, learned[name]), "")
		}
	}
	if t, _ := r.duration(learned, "pause_between_requests", longestPause); t > 0 && !p.betweenGiven {
		p.between, p.learnedBetween, p.tried[trialBetween] = max(p.between, t), true, time.Now()
		p.proof[trialBetween] = enoughProof
	}
	if t, _ := r.duration(learned, "pause_after_connect", longestDeaf); t > 0 && !p.connectGiven {
		p.connect, p.learnedDeaf, p.tried[trialConnect] = max(p.connect, t), true, time.Now()
		p.proof[trialConnect] = enoughProof
	}
	u.limits[0].restore(r.number(learned, "max_registers", 0, 1, defaultMaxRegisters), u.maxRegisters, d.now())
	u.limits[1].restore(r.number(learned, "max_bits", 0, 1, 16*defaultMaxRegisters), u.maxBits, d.now())
	if most := r.number(learned, "max_gap", -1, 0, 124); most >= 0 {
		d.restoreGap(device, uint32(most))
	}
	var kept settings
	kept.parseForbidden(learned, r)
	if len(kept.forbidden) > 0 {
		for _, g := range d.groups[device] {
			for _, s := range g.spans {
				s.cutAcross(&kept)
			}
		}
		u.cuts++
	}
	d.publish(u)
	return r.err()
}

// restore takes over a limit that was learned before. The next trial is due as if it were of now.
func (l *limit) restore(most, given int, now time.Time) {
	if most > 0 && most < given {
		*l = limit{best: uint32(most), bad: uint32(most) + 1, sure: true, at: now}
	}
}

// restoreGap takes over the widest gap that was read across. The next trial of a wider one is as rare as if many had been refused.
func (d *driver) restoreGap(device int, most uint32) {
	u := d.units[device]
	u.gaps = gapState{wait: maxWait, next: maxWait, at: d.now(), apart: sureGaps}
	u.cuts++
	for _, g := range d.groups[device] {
		for _, s := range g.spans {
			for i := range s.gaps(0, len(s.atoms)) {
				if s.gap(i) > most {
					s.cuts[i] = suspected
					u.gaps.strict[s.table], g.doubts = true, true
				}
			}
			s.blocks = s.chunks(0, len(s.atoms))
		}
	}
}

// cutAcross cuts the span where it reads across forbidden registers.
func (s *span) cutAcross(by *settings) {
	for i := range s.gaps(0, len(s.atoms)) {
		if gap := s.before(i); by.forbids(gap.table, gap.first, gap.last) {
			s.cuts[i] = refused
		}
	}
	s.blocks = s.chunks(0, len(s.atoms))
}

// Forget forgets what was learned of a device and its line: see drivers.Learner.
func (d *driver) Forget(device int) {
	d.shown.mu.Lock()
	defer d.shown.mu.Unlock()
	d.shown.forget[device] = true
	d.shown.learned[device] = nil
	for i, o := range d.shown.learned { // which may be in somebody's hands
		o = maps.Clone(o)
		delete(o, "pause_between_requests")
		delete(o, "pause_after_connect")
		if d.shown.learned[i] = o; len(o) == 0 {
			d.shown.learned[i] = nil
		}
	}
}

// forgetAsked does what Forget was asked for.
func (d *driver) forgetAsked() {
	d.shown.mu.Lock()
	defer d.shown.mu.Unlock()
	for i, asked := range d.shown.forget {
		if !asked {
			continue
		}
		d.shown.forget[i] = false
		d.link.pace.forget()
		u := d.units[i]
		u.limits, u.gaps, u.many, u.noMask = [2]limit{}, gapState{}, false, false
		for _, g := range d.groups[i] {
			g.forget()
		}
		u.told = u.manners(&d.link.pace)
	}
}

// forget forgets what was learned, but not what the config says.
func (p *pace) forget() {
	fresh := pace{betweenGiven: p.betweenGiven, connectGiven: p.connectGiven, candidate: -1}
	if p.betweenGiven {
		fresh.between = p.between
	}
	if p.connectGiven {
		fresh.connect = p.connect
	}
	*p = fresh
}

// forget forgets what the device refuses.
func (g *group) forget() {
	g.doubts, g.doubt, g.seams = false, doubt{}, nil
	for _, a := range g.areas {
		a.health, a.turn = health{}, 0
	}
	for _, s := range g.spans {
		s.again = false
		clear(s.cuts)
		s.reset()
	}
}
