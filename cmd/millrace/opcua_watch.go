package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

func newOPCUAWatch(pki *pkiFlags) *cobra.Command {
	f := serverFlags{pki: pki}
	var w nodeWatch
	cmd := &cobra.Command{
		Use:   "watch URL NODE...",
		Short: "Show values of an OPC UA server as it pushes them",
		Long: `Subscribe nodes as the gateway does, and show each value that the server pushes, with its source time (UTC), until it is interrupted or
for so long as --for says. It ends (exit 1) when the connection is lost.

` + ownSession,
		Example: `  millrace opcua watch opc.tcp://192.168.1.20:4840 "ns=2;s=Spindle.Speed" --interval 100ms
  millrace opcua watch opc.tcp://192.168.1.20:4840 "ns=2;s=Spindle.Speed" --for 10s -o json`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := knownFormat(w.format); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if w.lasts > 0 {
				var cancel func()
				ctx, cancel = context.WithTimeout(ctx, w.lasts)
				defer cancel()
			}
			w.nodes = args[1:]
			err := w.watch(ctx, cmd.OutOrStdout(), &f, args[0])
			switch {
			case ctx.Err() == nil:
				return failed(err)
			case w.shown == 0 && errors.Is(ctx.Err(), context.DeadlineExceeded):
				return failed(fmt.Errorf("no value came within %v; watch longer", w.lasts))
			}
			return nil
		},
	}
	f.register(cmd)
	cmd.Flags().DurationVar(&w.lasts, "for", 0, "how long; 0 = until it is interrupted")
	cmd.Flags().DurationVar(&w.interval, "interval", time.Second, "how often the server samples, 10ms at least")
	cmd.Flags().StringVarP(&w.format, "output", "o", "table", "table or json (one object a line)")
	return cmd
}

// nodeWatch shows what is pushed.
type nodeWatch struct {
	nodes    []string
	lasts    time.Duration
	interval time.Duration
	format   string
	shown    int
}

func (w *nodeWatch) watch(ctx context.Context, out io.Writer, f *serverFlags, url string) error {
	if w.interval < 10*time.Millisecond || w.lasts < 0 {
		return fmt.Errorf("interval %v for %v: use 10ms at least", w.interval, w.lasts)
	}
	c, err := f.dial(ctx, url, nodeTags(w.nodes), w.interval, "subscribe")
	if err != nil {
		return err
	}
	defer c.Close()
	if pushed, err := c.Subscribe(ctx, drivers.Ref{}); err != nil || !pushed {
		return errors.Join(err, errors.New("millrace opcua read asks for values one by one"))
	}
	show, flush := w.printer(out)
	for pushes := c.Pushed(); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p, open := <-pushes:
			switch {
			case p.Err != nil:
				return p.Err
			case !open:
				return errors.New("the connection is lost")
			case p.Note != "":
				fmt.Fprintln(os.Stderr, p.Note)
			}
			if p.Lost > 0 {
				fmt.Fprintf(os.Stderr, "%d values are missing before the next ones\n", p.Lost)
			}
			for i := range p.Readings {
				show(&p.Readings[i])
			}
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// watchedNode is a pushed value as -o json has it.
type watchedNode struct {
	Node    string `json:"node"`
	Value   any    `json:"value"`
	Quality string `json:"quality"`
	Reason  string `json:"reason,omitempty"`
	Source  string `json:"source_time,omitempty"`
}

// sourceText is the source time of a reading, "" where the server has none.
func sourceText(r *telemetry.Reading) string {
	if r.Time == 0 {
		return ""
	}
	return microText(time.UnixMicro(r.Time))
}

func (w *nodeWatch) printer(out io.Writer) (show func(*telemetry.Reading), flush func() error) {
	if w.format == "json" {
		enc := json.NewEncoder(out)
		var problem error
		return func(r *telemetry.Reading) {
			w.shown++
			problem = errors.Join(problem, enc.Encode(watchedNode{w.nodes[r.Tag], jsonValue(r.Value), r.Quality.String(), r.Reason, sourceText(r)}))
		}, func() error { return problem }
	}
	t := &table{out: out}
	t.add("SOURCE TIME", "NODE", "VALUE", "QUALITY", "REASON")
	show = func(r *telemetry.Reading) {
		w.shown++
		t.add(sourceText(r), w.nodes[r.Tag], shortText(r.Value), r.Quality.String(), r.Reason)
	}
	return show, func() error {
		if w.shown == 0 { // the heads get their widths from the first values
			return nil
		}
		return t.flush()
	}
}
