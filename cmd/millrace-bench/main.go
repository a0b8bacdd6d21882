// Command millrace-bench measures the whole chain: simulated devices, a gateway as a child process (ours or any
// other that can be configured to poll them), a real broker, and a subscriber that accounts for every single reading.
// It is a module of its own, so that nothing of it, and none of the modules that draw its plots, is in the gateway.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func main() {
	if err := newRoot().Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "millrace-bench: %s\n", err)
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "millrace-bench",
		Short: "Measure device → durable buffer → acknowledged MQTT, every reading accounted for",
		Example: `  go -C cmd/millrace-bench run . run steady
  go -C cmd/millrace-bench run . run steady --target floor       the physical limit of this machine
  go -C cmd/millrace-bench run . run outage --svg "$PWD/outage.svg"
  go -C cmd/millrace-bench run . compare "$PWD/before.json" "$PWD/after.json"`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	root.AddCommand(newScenario(), newGrowth(), newCompare(), newSim(), newFloor())
	return root
}

func newScenario() *cobra.Command {
	var o options
	var asJSON bool
	var svg string
	cmd := &cobra.Command{
		Use:   "run SCENARIO",
		Short: "Run one scenario: " + scenarioNames(),
		Long:  "Run one scenario and print what it measured. Flags override the scenario's own settings.\n\n" + scenarioHelp(),
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := settingsFor(args[0], cmd, o)
			if err != nil {
				return err
			}
			r, err := runScenario(cmd.Context(), s)
			if err != nil {
				return err
			}
			if svg != "" {
				if err := writeSVG(svg, r); err != nil {
					return err
				}
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
			}
			r.print(cmd.OutOrStdout())
			return r.verdict()
		},
	}
	o.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object instead of the table")
	cmd.Flags().StringVar(&svg, "svg", "", "write a plot of backlog, delivery and memory to this file")
	return cmd
}
