package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers/opcua"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/opcua/wire"
	"millrace/gateway/web"
)

// machineURI is the namespace of the simulated machine.
const machineURI = "urn:millrace:machine"

// simulateFlags say what to serve, and where.
type simulateFlags struct {
	listen, identity   string
	username, password string
	secured            bool
	faults             []string
	lasts              time.Duration
	counters           int
	rate               float64

	certificate []byte // what is served, in DER
}

func newOPCUASimulate() *cobra.Command {
	var f simulateFlags
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Serve a milling machine over OPC UA, without hardware",
		Long: `Serve a machine below Objects/Machine, with units, ranges and descriptions, values that move, a history (a value each second of the last hour, and from
then on), events (each part that is done), two alarms that come and go, a structure (Program.Step), an enumeration (Machine.Mode), counters
that change as often as --rate says, a value to write (Feed.Override) and a method of Objects itself, i=85, to call (Move). It takes every client's certificate, and anybody unless --username is given. It ends with Ctrl-C, or after --for.

Faults, as KIND, KIND@30s (30 s after the start) or KIND@30s-1m10s (until then):
` + uaFaultHelp,
		Example: `  millrace opcua simulate
  millrace opcua simulate --listen 127.0.0.1:4841 --identity machine.pem --secured
  millrace opcua simulate --fault silent@30s-1m10s --fault drop-subscriptions:quietly@2m --fault mute:Spindle.Load`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.counters < 0 || f.counters > maxCounters || !(f.rate >= 0 && f.rate <= 1000) {
				return fmt.Errorf("--counters takes 0 to %d, and --rate 0 to 1000", maxCounters)
			}
			if f.lasts < 0 || f.password != "" && f.username == "" {
				return errors.New("--for takes a time from 0 on, and --password a --username beside it")
			}
			s, err := f.machine()
			if err != nil {
				return failed(err)
			}
			changes, err := planUAFaults(s, f.faults)
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return failed(f.serve(ctx, cmd.OutOrStdout(), s, changes))
		},
	}
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:4840", "host:port; port 0: any")
	cmd.Flags().StringVar(&f.identity, "identity", "", "a `FILE` (PEM) with the server's key and certificate, made when it is not there (default: new ones at each start)")
	cmd.Flags().StringVar(&f.username, "username", "", "the one user who may log in (default: anybody)")
	cmd.Flags().StringVar(&f.password, "password", "", "that user's")
	cmd.Flags().BoolVar(&f.secured, "secured", false, "no endpoint without security")
	cmd.Flags().StringArrayVar(&f.faults, "fault", nil, "a `FAULT` on demand, see above; may be repeated")
	cmd.Flags().IntVar(&f.counters, "counters", 3, "variables Machine.Counters.N0 and so on, 0 to 10000")
	cmd.Flags().Float64Var(&f.rate, "rate", 10, "how often a second they count, 0 to 1000")
	cmd.Flags().DurationVar(&f.lasts, "for", 0, "end after this time (default: at Ctrl-C)")
	return cmd
}

// serve serves the machine until ctx ends, or for a while.
func (f *simulateFlags) serve(ctx context.Context, out io.Writer, s *simulatedUA, changes []uaChange) error {
	defer s.end()
	if err := s.start(slices.ContainsFunc(f.faults, onPath)); err != nil {
		return fmt.Errorf("listen on %s: %w; --listen takes another host:port", f.listen, err)
	}
	if err := f.greet(out, s); err != nil {
		return err
	}
	if f.lasts > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, f.lasts)
		defer cancel()
	}
	return errors.Join(workUA(ctx, out, s.machine, changes), farewellUA(out, s.Server))
}

// machine makes the server.
func (f *simulateFlags) machine() (*simulatedUA, error) {
	listen := strings.TrimSuffix(strings.TrimPrefix(f.listen, "opc.tcp://"), "/")
	who, err := uaIdentity(f.identity, listen)
	if err != nil {
		return nil, err
	}
	f.certificate = who.Certificate
	sim := &simulatedUA{listen: listen, rate: f.rate}
	if slices.ContainsFunc(f.faults, onPath) { // then clients come to a proxy
		listen = "127.0.0.1:0"
	}
	o := opcuasim.Options{Listen: listen, OnRead: sim.onRead, Browsable: true, MaxQueue: 10_000, Identity: who, NoneToo: !f.secured, Username: f.username, Password: f.password}
	for _, p := range wire.Policies() {
		if p != wire.None() && !p.Insecure {
			o.Policies = append(o.Policies, p.URI)
		}
	}
	s, err := opcuasim.New(o)
	if err != nil {
		return nil, err
	}
	m := s.AddMachineTree(time.Now().Add(-time.Hour))
	m.AddTypes()
	sim.Server, sim.machine, sim.counters = s, m, m.AddCounters(f.counters, f.rate)
	s.AddMethod("Move", opcuasim.Method{
		Inputs:  []opcuasim.Argument{{Name: "to", Type: 11, Rank: -1}}, // Double
		Outputs: []opcuasim.Argument{{Name: "distance", Type: 11, Rank: -1}},
		Call:    func(args []any) ([]any, uint32) { return []any{args[0]}, 0 },
	})
	return sim, nil
}

// maxCounters bounds the variables that count.
const maxCounters = 10_000

// greet says what is served.
func (f *simulateFlags) greet(out io.Writer, s *simulatedUA) error {
	policies := "secured: basic256sha256, aes128-sha256-rsaoaep, aes256-sha256-rsapss, each signed or encrypted; and none"
	try := " --option security_policy=none"
	if f.secured {
		policies, try = strings.TrimSuffix(policies, "; and none"), ""
	}
	keeps := "new at each start: --identity keeps one"
	if f.identity != "" {
		keeps = f.identity
	}
	_, err := fmt.Fprintf(out, "%s  a milling machine below Objects/Machine\n%s\ncertificate %s (%s)\nuser %s; every client's certificate is taken\ntry: millrace opcua browse %s%s\n",
		s.url(), policies, opcua.Thumbprint(f.certificate), keeps, cmp.Or(f.username, "anybody"), s.url(), try)
	return err
}

// workUA lets the machine work, and faults begin and end.
func workUA(ctx context.Context, out io.Writer, m *opcuasim.Machine, changes []uaChange) error {
	start := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for now := start; ; {
		for len(changes) > 0 && now.Sub(start) >= changes[0].at {
			if err := changes[0].do(); err != nil {
				return fmt.Errorf("fault %s: %w", changes[0].text, err)
			}
			if _, err := fmt.Fprintf(out, "%s  %s\n", now.UTC().Format(time.RFC3339), changes[0].text); err != nil {
				return err
			}
			changes = changes[1:]
		}
		m.Step(now)
		select {
		case <-ctx.Done():
			return nil
		case now = <-tick.C:
		}
	}
}

// farewellUA says how much was served.
func farewellUA(out io.Writer, s *opcuasim.Server) error {
	_, err := fmt.Fprintf(out, "%s, %s, %s\n", web.Count(s.Logins(), "login"), web.Count(s.Reads(), "read"), web.Count(s.Writes(), "write"))
	return err
}
