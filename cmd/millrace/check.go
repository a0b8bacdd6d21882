package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/buffer"
	"millrace/drivers"
	"millrace/gateway"
	"millrace/gateway/config"
	"millrace/gateway/web"
)

func newCheck() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:     "check --config FILE",
		Aliases: []string{"plan"},
		Short:   "Find every mistake in a config and print the plan; needs no network",
		Long: `Check loads the config with everything it includes, reports every mistake at once as file:line:col, and
prints the plan in words: what is polled, with how many requests, how busy each line is, what the gateway has learned of each
device beside the config, and where it goes. A line that
cannot keep up with what is asked of it is a warning. Exit 0 when the config can run, else 1.`,
		Example: "  millrace check --config millrace.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file, protocols(), config.Options{})
			if err != nil {
				return &exitError{exitFailed, err}
			}
			return printPlan(cmd.OutOrStdout(), cfg)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "millrace.yaml", "config file")
	return cmd
}

// printPlan says what run would do with this config.
func printPlan(w io.Writer, cfg *config.Config) error {
	var out planWriter
	out.w = w
	out.printf("gateway %q: %s, %s\n", cfg.Gateway, web.Count(uint64(len(cfg.Devices)), "device"), web.Count(uint64(len(cfg.Destinations)), "destination"))
	var total load
	hash := cfg.Hash() // of what the file says
	out.learned, out.selected = gateway.Learned(cfg), gateway.Select(cfg)
	for _, c := range cfg.Connections() {
		d, err := c.Protocol.New(c.Connection)
		if err != nil {
			return err
		}
		total.add(out.connection(&c, d))
		_ = d.Close()
	}
	out.printf("\nin all: %s, %.4g readings/s, %.4g records/s, %.4g requests/s\n", web.Count(uint64(total.tags), "tag"), total.readings, total.records, total.requests)
	out.buffer(cfg, total)
	for i := range cfg.Destinations {
		d := &cfg.Destinations[i]
		out.printf("destination %q: %s topic %s, %s, order %s\n", d.Name, gateway.PublicURL(d.URL), d.Topic, d.Format, d.Order)
	}
	out.place(cfg)
	out.absent(cfg)
	out.beside(cfg)
	out.printf("file descriptors: about %d; a process that may open fewer leaves devices out\n", gateway.DescriptorsFor(cfg))
	out.printf("config %s; the page of a gateway shows the one that is in force; secrets do not change it\n", hash)
	for _, w := range cfg.Warnings {
		out.warnings = append(out.warnings, w.Error())
	}
	for _, w := range out.warnings {
		out.printf("WARNING: %s\n", w)
	}
	if out.problem != nil {
		return &exitError{exitFailed, fmt.Errorf("the config has no mistake, but run would not start with it: %w", out.problem)}
	}
	if out.waits != nil {
		return &exitError{exitFailed, fmt.Errorf("the config has no mistake, but run would wait, poll nothing, and start when that is seen to: %w", out.waits)}
	}
	out.printf("ok\n")
	return out.err
}

// place sees whether the store can be where the config has it. A directory that is not there may be made before the gateway
// runs, or be on another machine than this one.
func (p *planWriter) place(cfg *config.Config) {
	err := gateway.Storable(cfg.Buffer.Path)
	if errors.Is(err, gateway.ErrNoParent) {
		p.warnings = append(p.warnings, "run would not start here: "+err.Error())
		return
	}
	if why, waits := gateway.DiskTrouble(cfg.Buffer.Path); err != nil && waits {
		p.waits = fmt.Errorf("buffer.path %q: %s", cfg.Buffer.Path, why)
		return
	}
	p.problem = errors.Join(p.problem, err)
}

// absent warns of destinations that the store keeps something for and the config does not name, and sees whether the store has
// a place for those that are new. It asks the running gateway, or
// reads the store; where there is none, or it cannot be read, there is nothing to say here.
func (p *planWriter) absent(cfg *config.Config) {
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	s, err := web.OpenStore(ctx, cfg.Buffer.Path, 0)
	if err != nil {
		return
	}
	defer s.Close()
	st, err := s.Status(ctx)
	if err != nil {
		return
	}
	for i := range st.Stats.Destinations {
		d := &st.Stats.Destinations[i]
		if d.Keeps() && !(&openedStore{cfg: cfg}).configured(d.Name) {
			p.warnings = append(p.warnings, fmt.Sprintf("the store keeps %s for destination %q, which this config does not name, and nothing new is for it; if it was renamed, nothing goes over to the new name; `millrace buffer forget %s` ends this",
				keptText(d), d.Name, d.Name))
		}
	}
	var names []string
	for i := range cfg.Destinations {
		names = append(names, cfg.Destinations[i].Name)
	}
	p.problem = errors.Join(p.problem, buffer.Places(names, st.Stats.Destinations))
}

// beside warns of what waits in stores beside where this config would make a new one: the gateway's own with its path before, and those that no
// gateway has.
func (p *planWriter) beside(cfg *config.Config) {
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	for _, dir := range gateway.Beside(cfg.Buffer.Path) {
		s, err := web.OpenStore(ctx, dir, 0)
		if err != nil {
			continue // it may be anything
		}
		st, err := s.Status(ctx)
		s.Close()
		if err != nil || st.Running && st.Gateway != cfg.Gateway || st.Holder != "" {
			continue
		}
		if waiting := st.Stats.Waiting(); waiting > 0 && st.Stats.Before != buffer.BeforeRestored { // a backup is kept, not forgotten
			p.warnings = append(p.warnings, fmt.Sprintf("%q has no store yet, and the one in %q keeps %s; if buffer.path was changed, nothing sends what waits there: stop the gateway and move the directory there (all that is in it, if there is one already), or let it be drained first",
				cfg.Buffer.Path, dir, web.Count(waiting, "record")))
		}
	}
}

// load is what a config asks of the plant, the store and the uplink, per second.
type load struct {
	tags                        int
	readings, records, requests float64
	texts                       float64 // bytes
	unsized                     int     // texts of unknown length
}

func (l *load) add(o load) {
	l.tags += o.tags
	l.readings += o.readings
	l.records += o.records
	l.requests += o.requests
	l.texts += o.texts
	l.unsized += o.unsized
}

type planWriter struct {
	w        io.Writer
	err      error
	problem  error               // why run would not start
	waits    error               // why it would wait
	warnings []string            // said again at the end
	learned  map[string][]string // by device, as lines of the config
	selected map[[2]string]int   // tags that rules have selected, by device and group
}

func (p *planWriter) printf(format string, args ...any) {
	_, err := fmt.Fprintf(p.w, format, args...)
	p.err = errors.Join(p.err, err)
}

func (p *planWriter) connection(c *config.Connection, d drivers.Driver) (total load) {
	p.printf("\n%s %s\n", c.Protocol.Name, gateway.PublicURL(c.Connection.URL))
	if r, ok := d.(drivers.Redundant); ok && r.Failover() != "" {
		if _, others := r.Paths(); len(others) == 1 {
			p.printf("  spare path %s: taken %s\n", others[0], r.Failover())
		} else {
			p.printf("  spare paths %s: the next is taken %s\n", strings.Join(others, ", "), r.Failover())
		}
	}
	planner, _ := d.(drivers.Planner)
	coster, _ := d.(drivers.Coster)
	var polls line
	for i, dev := range c.Devices {
		p.printf("  device %q, timeout %v\n", dev.Name, dev.Timeout)
		for j := range dev.Groups {
			g := &dev.Groups[j]
			var plan []string
			requests, how := 0, ""
			if planner != nil {
				plan, requests = planner.Plan(drivers.Ref{Device: i, Group: j}), planner.Requests(drivers.Ref{Device: i, Group: j})
				if how = fmt.Sprintf(", %s a cycle", web.Count(uint64(requests), "request")); requests == 0 {
					how = ", pushed by the device"
				}
			}
			l := groupLoad(g, requests)
			if sized, ok := d.(drivers.Sized); ok {
				l.addTexts(g, sized.TextSizes(drivers.Ref{Device: i, Group: j}))
			}
			p.printf("    group %q each %v: %s%s", g.Name, g.Interval, web.Count(uint64(len(g.Tags)), "tag"), how)
			if coster != nil {
				cost := coster.Cost(drivers.Ref{Device: i, Group: j})
				polls = append(polls, poll{dev.Name, g.Name, g.Interval, cost})
				p.printf(", %s, about %v on the line", web.Count(uint64(cost.Bytes), "byte"), round(cost.Time))
			}
			p.printf("\n")
			for _, line := range plan {
				p.printf("      %s\n", line)
			}
			if g.Selects {
				p.printf("      selected so far, as the gateway keeps it: %s\n", web.Count(uint64(p.selected[[2]string{dev.Name, g.Name}]), "tag"))
			}
			for _, t := range g.Derived {
				p.printf("      derive %s = %s\n", t.Name, t.Expr)
			}
			total.add(l)
		}
		for _, l := range p.learned[dev.Name] {
			p.printf("    learned by the gateway: %s\n", l)
		}
	}
	p.cost(gateway.PublicURL(c.Connection.URL), polls)
	return total
}

func groupLoad(g *config.Group, requests int) load {
	per := float64(time.Second) / float64(g.Interval)
	tags := len(g.Tags) + len(g.Derived)
	return load{tags: tags, readings: float64(tags) * per, records: per, requests: float64(requests) * per}
}

// addTexts counts the texts of a group, whose sizes a driver knows.
func (l *load) addTexts(g *config.Group, sizes []int) {
	for _, n := range sizes {
		if n < 0 {
			l.unsized++
		} else {
			l.texts += float64(n) * float64(time.Second) / float64(g.Interval)
		}
	}
}
