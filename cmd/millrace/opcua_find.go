package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers/opcua"
)

func newOPCUAFind() *cobra.Command {
	var timeout time.Duration
	var format string
	cmd := &cobra.Command{
		Use:   "find URL",
		Short: "List the OPC UA servers that a discovery server, or a server, knows",
		Long: `Ask for the servers that are registered there: best a discovery server (LDS), on port 4840 of most PCs with OPC UA. Every server
names itself at least. Nobody signs the answer: somebody on the way may have changed it.`,
		Example: "  millrace opcua find opc.tcp://192.168.1.20:4840",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := knownFormat(format); err != nil {
				return err
			}
			found, err := opcua.FindServers(cmd.Context(), args[0], timeout)
			if err == nil && len(found) == 0 {
				err = fmt.Errorf("%s knows no server, not even itself", args[0])
			}
			if err == nil {
				err = printServers(cmd.OutOrStdout(), format, found)
			}
			return failed(err)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "of each step")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json (one object a line)")
	return cmd
}

// foundServer is a server as -o json has it.
type foundServer struct {
	Name string   `json:"name"`
	Kind string   `json:"kind"`
	URI  string   `json:"application_uri"`
	URLs []string `json:"urls"`
}

func printServers(out io.Writer, format string, found []opcua.FoundServer) error {
	if format == "json" {
		enc := json.NewEncoder(out)
		for _, s := range found {
			if err := enc.Encode(foundServer{s.Name, s.Kind, s.URI, append([]string{}, s.URLs...)}); err != nil {
				return err
			}
		}
		return nil
	}
	t := &table{out: out}
	t.add("URL", "NAME", "KIND", "APPLICATION URI")
	for _, s := range found {
		if len(s.URLs) == 0 {
			t.add("-", s.Name, s.Kind, s.URI)
		}
		for _, url := range s.URLs {
			t.add(url, s.Name, s.Kind, s.URI)
		}
	}
	return t.flush()
}
