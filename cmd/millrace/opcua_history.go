package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers"
	"millrace/drivers/opcua"
	"millrace/drivers/telemetry"
)

func newOPCUAHistory(pki *pkiFlags) *cobra.Command {
	f := serverFlags{pki: pki}
	var h nodeHistory
	var from, to string
	cmd := &cobra.Command{
		Use:   "history URL NODE...",
		Short: "Show the values that an OPC UA server has kept of nodes",
		Long: `Ask for the raw values that the server has kept of each node, oldest first: those with --from <= source time < --to, times as in RFC 3339.
It is what backfill: history asks for after an outage. It ends at --max values of a node, and says from where there are more; a
server that is interrupted forgets where it was.

` + ownSession,
		Example: `  millrace opcua history opc.tcp://192.168.1.20:4840 "ns=2;s=Spindle.Speed"
  millrace opcua history opc.tcp://192.168.1.20:4840 "ns=2;s=Spindle.Speed" --from 2026-03-01T06:00:00Z --to 2026-03-01T14:00:00Z --max 1000000 -o csv >speed.csv`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := h.parse(from, to); err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return failed(h.show(ctx, cmd.OutOrStdout(), &f, args[0], args[1:]))
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&from, "from", "", "first time, such as 2026-03-01T06:00:00Z (default: an hour before --to)")
	cmd.Flags().StringVar(&to, "to", "", "time to stop before (default: now)")
	cmd.Flags().IntVar(&h.most, "max", 1000, "values of each node")
	cmd.Flags().StringVarP(&h.format, "output", "o", "table", "table, json (one object a line) or csv")
	return cmd
}

// nodeHistory shows what a server has kept.
type nodeHistory struct {
	from, to int64 // µs since 1970
	most     int
	format   string
}

// parse reads the bounds.
func (h *nodeHistory) parse(from, to string) error {
	if !slices.Contains([]string{"table", "json", "csv"}, h.format) {
		return fmt.Errorf("output %q is unknown; use table, json or csv", h.format)
	}
	if h.most < 1 {
		return fmt.Errorf("--max %d: use 1 at least", h.most)
	}
	h.to = time.Now().UnixMicro()
	var err error
	if to != "" {
		if h.to, err = parseTime(to); err != nil {
			return fmt.Errorf("--to %w", err)
		}
	}
	h.from = h.to - time.Hour.Microseconds()
	if from != "" {
		if h.from, err = parseTime(from); err != nil {
			return fmt.Errorf("--from %w", err)
		}
	}
	if h.from >= h.to {
		return fmt.Errorf("--from %s is not before --to %s", microText(time.UnixMicro(h.from)), microText(time.UnixMicro(h.to)))
	}
	return nil
}

// show asks for one node after the other: what the server says of one does not keep the others from it.
func (h *nodeHistory) show(ctx context.Context, out io.Writer, f *serverFlags, url string, nodes []string) error {
	var groups []drivers.Group
	for _, tag := range nodeTags(nodes) {
		groups = append(groups, drivers.Group{Name: tag.Address, Interval: time.Hour, Tags: []telemetry.Tag{tag}})
	}
	c, err := f.dialGroups(ctx, url, groups, "read")
	if err != nil {
		return err
	}
	defer c.Close()
	p := newReadingPrinter(out, h.format)
	shown, kept := 0, 0
	for i, node := range nodes {
		n, keeps, err := h.one(ctx, c, i, node, p)
		if err != nil {
			return err
		}
		if shown += n; keeps {
			kept++
		}
	}
	switch {
	case kept == 0:
		return errors.New("no history of any of these nodes; millrace opcua browse shows of which the server keeps it (access: history)")
	case shown == 0:
		return fmt.Errorf("no value from %s to %s; --from and --to say another time", microText(time.UnixMicro(h.from)), microText(time.UnixMicro(h.to)))
	}
	return nil
}

var (
	errEnough      = errors.New("enough")
	errInterrupted = errors.New("interrupted; what is printed is not all")
)

// one shows what there is of one node. A request that is under way is waited for: to give it up costs the connection, and the server would keep its
// place in the history.
func (h *nodeHistory) one(ctx context.Context, c *opcua.Client, group int, node string, p *readingPrinter) (shown int, keeps bool, err error) {
	more := int64(0)
	refused, err := c.Past(context.WithoutCancel(ctx), drivers.Ref{Group: group}, h.from, h.to, func(readings []telemetry.Reading) error {
		for i := range readings {
			if shown == h.most {
				more = readings[i].Time
				return errors.Join(errEnough, p.flush())
			}
			shown++
			p.value(node, &readings[i])
		}
		if ctx.Err() != nil {
			return errors.Join(errInterrupted, p.flush())
		}
		return p.flush()
	})
	switch {
	case more != 0:
		fmt.Fprintf(os.Stderr, "%s: there are more from %s on; --from goes on there, --max shows more\n", safe(node), microText(time.UnixMicro(more)))
		return shown, true, nil
	case err != nil:
		return shown, true, err
	case refused != "":
		fmt.Fprintf(os.Stderr, "%s: the server gives no history of it: %s\n", safe(node), safe(refused))
	case shown == 0:
		fmt.Fprintf(os.Stderr, "%s: the server keeps its history, and has no value of this time\n", safe(node))
	}
	return shown, refused == "", nil
}
