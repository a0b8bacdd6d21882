package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"millrace/gateway/web"
)

// redraw is how often the terminal is drawn: often enough to see values move, seldom enough for a slow line.
const redraw = 200 * time.Millisecond

// display is where a running demo is seen: a terminal, plain lines, or nowhere.
type display struct {
	screen *screen // nil = no terminal
	keys   <-chan byte
	note   note
	rates  []mark // of the last seconds
	spoken time.Time
}

// mark is how many readings had arrived at a time.
type mark struct {
	at time.Time
	n  uint64
}

func (d *demo) openDisplay() {
	out, ok := isTerminal(d.options.Out)
	if d.options.JSON || !ok || d.options.In == nil {
		return
	}
	d.display.screen, d.display.keys = openScreen(out, d.options.In)
	plain := &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}
	d.log = slog.New(slog.NewTextHandler(&d.display.note, plain))
}

func (s *display) close() {
	if s.screen != nil {
		s.screen.close()
		s.screen = nil
	}
}

// note keeps the last line that was logged.
type note struct {
	mu   sync.Mutex
	line string
}

func (n *note) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.line = strings.TrimPrefix(strings.TrimSpace(string(p)), "msg=")
	return len(p), nil
}

func (n *note) last() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.line
}

// watch shows the running demo until its time is over, a person ends it, or the gateway fails.
func (d *demo) watch(ctx context.Context, ended <-chan error) error {
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	over, cut, mend := d.schedule()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-over:
			return nil
		case err := <-ended:
			return errors.Join(errors.New("the gateway stopped by itself"), err)
		case <-cut:
			d.cut(true)
		case <-mend:
			d.cut(false)
		case key, ok := <-d.display.keys:
			if !ok {
				d.display.keys = nil
			} else if d.press(key) {
				return nil
			}
		case <-tick.C:
		}
		d.look()
	}
}

// schedule returns when the demo ends and when its outage begins and ends; nil channels never do.
func (d *demo) schedule() (over, cut, mend <-chan time.Time) {
	if d.options.For > 0 {
		over = time.After(time.Until(d.started.Add(d.options.For)))
	}
	if d.options.Outage > 0 {
		before := 5 * time.Second
		if d.options.For > 0 {
			before = (d.options.For - d.options.Outage) / 2
		}
		cut, mend = time.After(before), time.After(before+d.options.Outage)
	}
	return over, cut, mend
}

// press obeys a key and reports whether it ends the demo.
func (d *demo) press(key byte) (end bool) {
	switch key {
	case 'o', 'O', ' ':
		cut, _ := d.uplink.state()
		d.cut(!cut)
	case 'q', 'Q', 3, 4: // also Ctrl-C and Ctrl-D: a raw terminal sends them as keys
		return true
	}
	return false
}

func (d *demo) cut(cut bool) {
	d.uplink.set(cut)
	if d.display.screen == nil && !d.options.JSON {
		word := "mended"
		if cut {
			word = "cut; the plant goes on"
		}
		fmt.Fprintf(d.options.Out, "%5.1f s  uplink %s\n", time.Since(d.started).Seconds(), word)
	}
}

// attend goes on showing until the gateway has drained.
func (d *demo) attend(drained <-chan error) error {
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for {
		select {
		case err := <-drained:
			return err
		case <-tick.C:
			d.look()
		}
	}
}

// look takes one view of everything and shows it where there is somebody to see it.
func (d *demo) look() {
	s, err := d.ask()
	if err != nil {
		d.log.Warn("the gateway's state is not known", "cause", err)
		return
	}
	v := d.view(s)
	d.peak = max(d.peak, v.kept)
	v.peak = d.peak
	switch {
	case d.options.JSON:
	case d.display.screen != nil:
		width, height := d.display.screen.size()
		d.display.screen.draw(v.frame(width, height, colourful(d.display.screen.out)))
	case v.now.Sub(d.display.spoken) >= time.Second:
		d.display.spoken = v.now
		fmt.Fprintln(d.options.Out, v.line())
	}
}

func (d *demo) view(s *web.Snapshot) *view {
	now, t := time.Now(), d.cloud.account.totals()
	v := &view{now: now, elapsed: now.Sub(d.started), span: d.options.For, received: t.good + t.bad, note: d.display.note.last(),
		keys: d.display.keys != nil, page: d.page, onDisk: s.Buffer.Bytes}
	v.cut, v.since = d.uplink.state()
	for i := range s.Destinations {
		u := &s.Destinations[i]
		v.kept, v.oldest, v.state = v.kept+u.BacklogReadings, max(v.oldest, u.OldestAge), u.State
	}
	v.rate = d.display.pace(now, v.received)
	v.panels = d.panels()
	return v
}

// pace is the readings a second over the last three seconds.
func (s *display) pace(now time.Time, n uint64) float64 {
	s.rates = append(s.rates, mark{now, n})
	for len(s.rates) > 2 && now.Sub(s.rates[0].at) > 3*time.Second {
		s.rates = s.rates[1:]
	}
	first := s.rates[0]
	if now.Equal(first.at) {
		return 0
	}
	return float64(n-first.n) / now.Sub(first.at).Seconds()
}

// panels is the cloud's table: the config tells what to expect, the account what came.
func (d *demo) panels() []panel {
	a := d.cloud.account
	a.mu.Lock()
	defer a.mu.Unlock()
	var panels []panel
	for i := range d.shown {
		dev := &d.shown[i]
		p := panel{device: dev.Name, about: d.plant.served[dev.Name].about}
		came := a.devices[dev.Name]
		for j := range dev.Groups {
			for _, tag := range dev.Groups[j].Tags {
				r := row{tag: tag.Name, unit: tag.Unit}
				if came != nil {
					r.shown = came.latest[dev.Groups[j].Name+"/"+tag.Name]
				}
				p.rows = append(p.rows, r)
			}
		}
		panels = append(panels, p)
	}
	return panels
}

// line is the view as one plain line.
func (v *view) line() string {
	uplink := "uplink " + v.state
	if v.cut {
		uplink = "uplink cut"
	}
	var first []string
	for i := range v.panels {
		r := &v.panels[i].rows[0]
		value := "-"
		if r.shown.quality == "bad" {
			value = "bad"
		} else if r.shown.value != nil {
			value = strings.TrimSpace(words(r.shown.value) + " " + r.unit)
		}
		first = append(first, v.panels[i].device+" "+r.tag+" "+value)
	}
	return fmt.Sprintf("%5.1f s  %6s received, %3.0f/s; %s kept; %s; %s", v.elapsed.Seconds(), web.Thousands(v.received), v.rate,
		web.Thousands(v.kept), uplink, strings.Join(first, ", "))
}
