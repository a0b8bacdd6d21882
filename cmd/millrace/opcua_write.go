package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers"
	"millrace/drivers/opcua"
	"millrace/drivers/telemetry"
	"millrace/gateway/command"
)

func newOPCUAWrite(pki *pkiFlags) *cobra.Command {
	f := serverFlags{pki: pki}
	var tag telemetry.Tag
	var yes bool
	cmd := &cobra.Command{
		Use:   "write URL NODE VALUE --yes",
		Short: "Write one value to a node of an OPC UA server and read it back",
		Long: `Write one value to a node, as the type that the server says it has, and show what it holds before and after. Without --yes nothing is
written. An array is written as JSON has it: "[1, 2, 3]"; times as 2026-01-02T03:04:05Z, bytes as hex digits. A running gateway
writes by itself only what its config lists under writes:, with millrace write; this command asks no config.

` + ownSession,
		Example: `  millrace opcua write opc.tcp://192.168.1.20:4840 "ns=2;s=Feed.Override" 80 --yes
  millrace opcua write opc.tcp://192.168.1.20:4840 "ns=2;s=Offsets" "[0.1, -0.2]" --option username=setter --yes`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			tag.Address = args[1]
			c, err := f.dial(cmd.Context(), args[0], []telemetry.Tag{tag}, time.Hour, "read")
			if err != nil {
				return failed(err)
			}
			defer c.Close()
			return failed(writeNode(cmd.Context(), cmd.OutOrStdout(), c, args[1], strings.TrimPrefix(args[2], " "), yes))
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "write; without it nothing is")
	cmd.Flags().StringVar(&tag.Type, "type", "", "type of the value, as in a config, where the server does not say it")
	return cmd
}

// writeNode shows what is there, writes, and shows what is there then.
func writeNode(ctx context.Context, out io.Writer, c *opcua.Client, node, text string, yes bool) error {
	typ, array, err := c.WriteType(ctx, drivers.Ref{}, 0)
	if err != nil {
		return err
	}
	value, err := command.Parse(text, typ, array)
	if err != nil {
		return fmt.Errorf("write %s: %w", node, err)
	}
	fmt.Fprintf(out, "%s: now %s\n", node, heldBy(ctx, c))
	if list := c.Unlisted(ctx, value); list != "" {
		fmt.Fprintf(os.Stderr, "%s is none of the numbers of its enumeration, %s; what the machine makes of it is not known\n", shortText(value), safe(list))
	}
	if !yes {
		return fmt.Errorf("nothing was written; add --yes to write %s", shortText(value))
	}
	if err := errors.Join(c.Write(ctx, []drivers.Write{{Value: value}})...); errors.Is(err, drivers.ErrLink) {
		return fmt.Errorf("%w; it is not known whether the server wrote it: read it back", err)
	} else if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s written and confirmed; now %s\n", shortText(value), heldBy(ctx, c))
	return nil
}

// heldBy says what the server holds.
func heldBy(ctx context.Context, c *opcua.Client) string {
	all, err := c.Values(ctx)
	switch {
	case err != nil:
		return "not known: " + err.Error()
	case all[0].Type == "":
		return "not known: " + strings.TrimPrefix(all[0].Status+": "+all[0].Reason, "Good: ")
	}
	return shortText(all[0].Value) + " (" + all[0].Type + ")"
}
