package modbustool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"millrace/configs/templates"
	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
	"millrace/gateway/web"
)

// simulateFlags say what to serve, and where.
type simulateFlags struct {
	listen, transport, caFile string
	unit, base                int
	faults                    []string
	duration                  time.Duration
}

const maxLines = 100 // of a config

func newSimulate(h Host) *cobra.Command {
	var f simulateFlags
	cmd := &cobra.Command{
		Use:   "simulate TEMPLATE|CONFIG",
		Short: "Serve a device template, or the Modbus devices of a config, without hardware",
		Long: `Serve every tag of a template, or of the Modbus devices of a config, with values that a device could have and that move. Each
line of a config has a port of its own, from --listen on; a serial line is a pseudo-terminal as slow as its url says; and a device of
tcp-listen or rtu-listen calls the gateway, with its registration and its heartbeats. Registers that a client writes keep what was
written. A SunSpec template has the chain of models around it. It ends with Ctrl-C, or after --for.

Faults:
` + faultHelp,
		Example: `  millrace modbus simulate eastron-sdm120 --listen 127.0.0.1:1502
  millrace modbus simulate millrace.yaml --fault silent:holding:10 --fault exception:2:input:40-49`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return templates.List(), cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var faults []modbussim.Fault
			for _, text := range f.faults {
				one, err := parseFault(text)
				if err != nil {
					return err
				}
				faults = append(faults, one)
			}
			return h.run(cmd, func(ctx context.Context) error {
				p := &plant{started: time.Now()}
				defer p.close()
				if err := f.fill(p, h, args[0]); err != nil {
					return err
				}
				if err := p.publish(f.caFile); err != nil {
					return err
				}
				for i, fault := range faults {
					p.inject(fault, strings.HasPrefix(f.faults[i], gapsFault))
				}
				return p.serve(ctx, cmd.OutOrStdout(), f.duration)
			})
		},
	}
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:1502", "host:port of the first line; the others have the ports after it. Port 0: any")
	cmd.Flags().StringVar(&f.transport, "transport", "tcp", "of a template: tcp, tcp+tls, udp, rtuovertcp, rtuoverudp, asciiovertcp, asciioverudp, rtu, ascii (pseudo-terminals)")
	cmd.Flags().StringVar(&f.caFile, "ca-file", "", "a `FILE` for the certificate that clients of tcp+tls must trust; it is made anew. Without it a line of a config with tcp+tls is served as tcp")
	cmd.Flags().IntVar(&f.unit, "unit", 1, "unit id of a template, 0 to 255")
	cmd.Flags().IntVar(&f.base, "base", 0, "register that offsets of a template count from (default the template's)")
	cmd.Flags().StringArrayVar(&f.faults, "fault", nil, "a `FAULT` on demand, see above; may be repeated")
	cmd.Flags().DurationVar(&f.duration, "for", 0, "end after this time (default: at Ctrl-C)")
	return cmd
}

// fill makes the devices of a template, or of a config.
func (f *simulateFlags) fill(p *plant, h Host, name string) error {
	t, err := templates.Load(name)
	if err == nil {
		c, err := templateConnection(t, f)
		if err != nil {
			return err
		}
		listen := f.listen
		if f.transport == "rtu" || f.transport == "ascii" {
			listen = ""
		}
		if f.transport == "tcp+tls" {
			if f.caFile == "" {
				return errors.New("serve tcp+tls: clients need a certificate to trust; give --ca-file FILE, where it is written")
			}
			if p.tls, err = certificateFor(listen); err != nil {
				return err
			}
		}
		if err := p.add(c, f.transport, listen); err != nil {
			return err
		}
		serveSunSpec(p.servers[0].Unit(uint8(f.unit)), name, cmp.Or(f.base, t.Base))
		return nil
	}
	if _, e := os.Stat(name); e != nil {
		return fmt.Errorf("simulate %q: it is neither a file nor a template; `millrace template` lists the templates", name)
	}
	cfg, err := config.Load(name, h.Protocols(), config.Options{})
	if err != nil {
		return err
	}
	return f.fillLines(p, cfg)
}

// fillLines serves each Modbus line of a config on a port of its own.
func (f *simulateFlags) fillLines(p *plant, cfg *config.Config) error {
	listen := f.listen
	for _, c := range cfg.Connections() {
		if c.Protocol.Name != "modbus" {
			continue
		}
		if len(p.servers) == maxLines {
			return fmt.Errorf("simulate %q: it has more than %d lines", cfg.File, maxLines)
		}
		var err error
		if listen, err = f.fillLine(p, c.Connection, listen); err != nil {
			return err
		}
	}
	if len(p.servers) == 0 {
		return fmt.Errorf("simulate %q: it has no Modbus device", cfg.File)
	}
	return nil
}

// fillLine serves one line, and returns where the next one listens.
func (f *simulateFlags) fillLine(p *plant, c drivers.Connection, listen string) (next string, err error) {
	transport, _, _ := strings.Cut(c.URL, "://")
	by, err := callerOf(c)
	if err != nil {
		return "", err
	}
	switch {
	case by != nil:
		transport = by.transport
	case transport == "tcp+tls" && f.caFile == "":
		transport = "tcp" // nobody has the key of its certificate
	case transport == "tcp+tls" && p.tls == nil:
		if p.tls, err = certificateFor(listen); err != nil {
			return "", err
		}
	}
	next, where := listen, listen
	if transport == "rtu" || transport == "ascii" {
		where = ""
	} else if next, err = nextPort(listen); err != nil {
		return "", err
	}
	if err := p.add(c, transport, where); err != nil {
		return "", err
	}
	n := len(p.servers) - 1
	p.about[n] += fmt.Sprintf(" (%s)", c.URL)
	if by != nil {
		by.server = p.servers[n]
		p.callers = append(p.callers, by)
	}
	return next, nil
}

// templateConnection is a connection with one device of a template.
func templateConnection(t *templates.Template, f *simulateFlags) (drivers.Connection, error) {
	params := templates.Params{Unit: f.unit, Base: f.base}
	if f.unit < 0 || f.unit > 255 {
		return drivers.Connection{}, fmt.Errorf("unit %d is out of range; use 0 to 255", f.unit)
	}
	groups, err := t.Expand(params)
	if err != nil {
		return drivers.Connection{}, err
	}
	url := f.transport + "://simulated"
	if f.transport == "rtu" || f.transport == "ascii" {
		url = f.transport + ":///dev/simulated"
	}
	d := drivers.Device{Name: t.Name, URL: url, Timeout: time.Second, Options: t.Options(params)}
	for _, g := range groups {
		out := drivers.Group{Name: g.Name, Interval: g.Interval}
		for _, tag := range g.Tags {
			out.Tags = append(out.Tags, telemetry.Tag{Name: tag.Name, Address: tag.Address, Type: tag.Type, Unit: tag.Unit,
				Scale: tag.Scale, Offset: tag.Offset, Options: tag.Options})
		}
		for _, v := range g.Derived { // its exponent reads simulatedPower
			i := slices.IndexFunc(out.Tags, func(t telemetry.Tag) bool { return t.Name == v.Raw })
			out.Tags[i].Unit, out.Tags[i].Scale = v.Unit, 0.1
		}
		d.Groups = append(d.Groups, out)
	}
	return drivers.Connection{URL: url, Devices: []drivers.Device{d}}, nil
}

// serve lets the devices work until ctx ends, or for a while.
func (p *plant) serve(ctx context.Context, w io.Writer, duration time.Duration) error {
	if duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, duration)
		defer cancel()
	}
	p.work(time.Now())
	for i, s := range p.servers {
		if _, err := fmt.Fprintf(w, "%s  %s\n", s.URL(), p.about[i]); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "%s\n", web.Count(uint64(len(p.signals)), "tag"))
	if len(p.left) > 0 {
		fmt.Fprintf(w, "no value fits %s: they read what their registers happen to hold\n", strings.Join(p.left, ", "))
	}
	var calls sync.WaitGroup
	defer calls.Wait()
	for _, c := range p.callers {
		calls.Go(func() { c.run(ctx) })
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return p.farewell(w)
		case now := <-tick.C:
			p.work(now)
		}
	}
}

// farewell says how much was served.
func (p *plant) farewell(w io.Writer) error {
	var requests, clients uint64
	for _, s := range p.servers {
		requests, clients = requests+s.Requests(), clients+s.Accepted()
	}
	_, err := fmt.Fprintf(w, "%s of %s\n", web.Count(requests, "request"), web.Count(clients, "connection"))
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
