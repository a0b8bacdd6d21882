package main

import (
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers/opcua"
)

func newOPCUARead(pki *pkiFlags) *cobra.Command {
	f := serverFlags{pki: pki}
	var format string
	cmd := &cobra.Command{
		Use:   "read URL NODE...",
		Short: "Read nodes of an OPC UA server: value, type, status and times",
		Long:  "Read the values of nodes, and what the server says of each: its type, its status, and when it was taken (UTC).\n\n" + ownSession,
		Example: `  millrace opcua read opc.tcp://192.168.1.20:4840 "ns=2;s=Spindle.Speed" i=2258
  millrace opcua read opc.tcp://192.168.1.20:4840 "ns=2;s=Spindle.Speed" --option security_policy=none -o json`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := knownFormat(format); err != nil {
				return err
			}
			c, err := f.dial(cmd.Context(), args[0], nodeTags(args[1:]), time.Hour, "read")
			if err != nil {
				return failed(err)
			}
			defer c.Close()
			all, err := c.Values(cmd.Context())
			if err == nil {
				err = printNodes(cmd.OutOrStdout(), format, args[1:], all)
			}
			return failed(err)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json (one object a line)")
	return cmd
}

// readNode is a node as -o json has it.
type readNode struct {
	Node   string `json:"node"`
	Value  any    `json:"value"`
	Type   string `json:"type,omitempty"`
	Status string `json:"status,omitempty"`
	Reason string `json:"reason,omitempty"`
	Source string `json:"source_time,omitempty"`
	Server string `json:"server_time,omitempty"`
}

// printNodes fails when no node has a value.
func printNodes(out io.Writer, format string, nodes []string, all []opcua.NodeValue) error {
	enc, t, values := json.NewEncoder(out), &table{out: out}, 0
	t.add("NODE", "VALUE", "TYPE", "STATUS", "SOURCE TIME", "SERVER TIME", "REASON")
	for i := range all {
		n := &all[i]
		if n.Type != "" {
			values++
		}
		if format == "json" {
			if err := enc.Encode(readNode{nodes[i], jsonValue(n.Value), n.Type, n.Status, n.Reason, microText(n.Source), microText(n.Server)}); err != nil {
				return err
			}
			continue
		}
		t.add(nodes[i], shortText(n.Value), n.Type, n.Status, microText(n.Source), microText(n.Server), n.Reason)
	}
	if format == "table" {
		if err := t.flush(); err != nil {
			return err
		}
	}
	if values == 0 {
		return errors.New("no node has a value; millrace opcua browse shows which there are")
	}
	return nil
}
