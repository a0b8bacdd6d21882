package main

import (
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"millrace/drivers"
)

// newDrivers lists what stands after `driver:` and the keys that only that driver knows.
func newDrivers() *cobra.Command {
	return &cobra.Command{
		Use:   "drivers",
		Short: "List the drivers and their config keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, p := range protocols() {
				fmt.Fprintf(w, "driver: %s\n", p.Name)
				printKeys(w, "device", slices.Concat(p.DeviceOptions, p.ConnectionOptions))
				printKeys(w, "group", p.GroupOptions)
				printKeys(w, "tag", p.TagOptions)
			}
			return w.Flush()
		},
	}
}

func printKeys(w *tabwriter.Writer, of string, keys []drivers.Option) {
	for _, k := range keys {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", of, k.Name, k.Help)
	}
}
