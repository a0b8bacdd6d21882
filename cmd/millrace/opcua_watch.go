package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

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
			return w.run(cmd, "value", func(ctx context.Context) error {
				return w.watch(ctx, cmd.OutOrStdout(), &f, args[0], args[1:])
			})
		},
	}
	f.register(cmd)
	w.register(cmd)
	cmd.Flags().DurationVar(&w.interval, "interval", time.Second, "how often the server samples, 10ms at least")
	return cmd
}

// nodeWatch shows values that are pushed.
type nodeWatch struct {
	pushWatch
	interval time.Duration
}

func (w *nodeWatch) watch(ctx context.Context, out io.Writer, f *serverFlags, url string, nodes []string) error {
	if w.interval < 10*time.Millisecond {
		return fmt.Errorf("interval %v: use 10ms at least", w.interval)
	}
	c, err := f.dial(ctx, url, nodeTags(nodes), w.interval, "subscribe")
	if err != nil {
		return err
	}
	defer c.Close()
	p := newReadingPrinter(out, w.format)
	return w.follow(ctx, c, "values", func(readings []telemetry.Reading) error {
		for i := range readings {
			w.shown++
			p.value(nodes[readings[i].Tag], &readings[i])
		}
		return p.flush()
	})
}
