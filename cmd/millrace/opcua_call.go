package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers/opcua"
	"millrace/drivers/telemetry"
	"millrace/gateway/command"
)

func newOPCUACall(pki *pkiFlags) *cobra.Command {
	f := serverFlags{pki: pki}
	var yes bool
	cmd := &cobra.Command{
		Use:   "call URL OBJECT METHOD [ARGS] --yes",
		Short: "Call a method of an OPC UA server",
		Long: `Call a method of an object. METHOD is its node id, or its name below the object. Without --yes it shows what the method takes and gives, and
calls nothing. Arguments are read as the types that the server says they have; an array is written as JSON has it: "[1, 2, 3]". A running
gateway calls by itself only what its config lists under writes:, with millrace call; this command asks no config.

` + ownSession,
		Example: `  millrace opcua call opc.tcp://192.168.1.20:4840 "ns=2;s=Machine" Home
  millrace opcua call opc.tcp://192.168.1.20:4840 "ns=2;s=Machine" "ns=2;s=Machine.Move" 12.5 fast --yes
  millrace opcua call opc.tcp://127.0.0.1:4840 i=85 Move 12.5 --yes     # of millrace opcua simulate; i=85 is Objects`,
		Args: cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.dial(cmd.Context(), args[0], nil, time.Hour, "read")
			if err != nil {
				return failed(err)
			}
			defer c.Close()
			return failed(callMethod(cmd.Context(), cmd.OutOrStdout(), c, args[1:], yes))
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "call; without it nothing is")
	return cmd
}

// callMethod takes the object, the method and its arguments.
func callMethod(ctx context.Context, out io.Writer, c *opcua.Client, args []string, yes bool) error {
	m, err := c.Method(ctx, args[0], args[1])
	if err != nil {
		return err
	}
	if !yes || len(args)-2 != len(m.Inputs) {
		fmt.Fprintf(out, "%s takes %s; gives %s\n", safe(m.Name), argumentList(m.Inputs), argumentList(m.Outputs))
	}
	if len(args)-2 != len(m.Inputs) {
		return fmt.Errorf("nothing was called; give %s, not %d", telemetry.Count(len(m.Inputs), "argument"), len(args)-2)
	}
	values := make([]telemetry.Value, len(m.Inputs))
	for i := range m.Inputs {
		in := &m.Inputs[i]
		if values[i], err = command.Parse(strings.TrimPrefix(args[2+i], " "), in.Type, in.Array); err != nil {
			return fmt.Errorf("argument %q: %w", safe(in.Name), err)
		}
	}
	if !yes {
		return fmt.Errorf("nothing was called; add --yes to call it")
	}
	results, err := c.Call(ctx, m, values)
	if err != nil {
		return fmt.Errorf("call %s: %w", args[1], err)
	}
	fmt.Fprintln(out, "called; the server says Good")
	for i := range results {
		name := fmt.Sprintf("result %d", i+1)
		if i < len(m.Outputs) {
			name = m.Outputs[i].Name
		}
		fmt.Fprintf(out, "%s = %s (%s)%s\n", safe(name), shortText(results[i].Value), results[i].Type, safe(strings.TrimSuffix("  "+results[i].Reason, "  ")))
	}
	return nil
}

func argumentList(all []opcua.Argument) string {
	if len(all) == 0 {
		return "nothing"
	}
	var words []string
	for i := range all {
		words = append(words, safe(all[i].String()))
	}
	return strings.Join(words, ", ")
}

// safe is a text of a server for a terminal.
func safe(s string) string { return strings.Map(printable, s) }
